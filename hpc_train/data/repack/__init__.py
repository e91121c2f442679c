"""`hpc-train shard`: any data that the suite reads, as shards."""
