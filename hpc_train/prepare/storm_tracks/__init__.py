"""`hpc-train prepare storm-tracks`: gridded fields and best tracks of cyclones to shards of label maps."""
