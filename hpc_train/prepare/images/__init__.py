"""`hpc-train prepare image-folder`: image files as shards, of JPEG files or of pixels."""
