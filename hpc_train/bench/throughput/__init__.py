"""`hpc-train bench throughput`: how fast a trainer trains, and what bounds it."""
