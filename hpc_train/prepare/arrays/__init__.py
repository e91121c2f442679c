"""`hpc-train prepare arrays`: NumPy arrays of any shape as shards."""
