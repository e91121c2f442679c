"""`hpc-train bench throughput`: how fast a trainer trains, and what bounds it."""

# The format of a measurement's file.
FORMAT = 2
