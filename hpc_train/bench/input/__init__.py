"""`hpc-train bench input` and `bench decode`: how fast samples are read and images decoded, beside other ways."""
