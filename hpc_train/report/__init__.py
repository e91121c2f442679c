"""`hpc-train report`: pictures of what runs recorded."""
