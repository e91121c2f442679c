"""`hpc-train doctor`: checks this machine, environment and job, and prints one line for each check."""
