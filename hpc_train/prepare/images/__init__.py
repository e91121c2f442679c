"""`hpc-train prepare image-folder`: image files of any kind as JPEG shards."""
