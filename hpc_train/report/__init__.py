"""`hpc-train report`: draws what runs recorded and studies measured."""
