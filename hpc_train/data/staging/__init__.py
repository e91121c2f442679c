"""`hpc-train stage`: copies of the data on the nodes' own storage."""
