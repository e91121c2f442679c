"""`hpc-train prepare storm-tracks`: turns gridded fields and best tracks of cyclones into shards of label maps."""
