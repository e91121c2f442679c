"""`hpc-train prepare`: data sets that people know, and those that they bring, as the suite's shards."""
