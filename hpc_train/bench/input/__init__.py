"""`hpc-train bench input` and `bench decode`: how fast the suite reads samples and decodes images, beside others."""
