"""`hpc-train prepare`: writes well-known data sets, and the user's own, as the suite's shards."""
