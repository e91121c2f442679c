"""`hpc-train bench throughput`: how fast a trainer trains, and what bounds it."""

# Of the files that measurements are written to.
FORMAT = 2
