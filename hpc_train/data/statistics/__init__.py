"""`hpc-train stats`: mean, deviation and range of each channel, and how often each class occurs."""
