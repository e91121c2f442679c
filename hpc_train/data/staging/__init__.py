"""`hpc-train stage`: copy the data to the nodes' own storage."""
