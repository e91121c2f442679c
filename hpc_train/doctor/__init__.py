"""`hpc-train doctor`: says in one line each what of this machine, environment and job is well, and what is not."""
