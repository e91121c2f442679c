"""What belongs to a site rather than to the code: the Slurm templates and the container recipes."""
