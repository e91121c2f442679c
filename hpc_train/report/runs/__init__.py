"""What `hpc-train report` draws of runs: curves, confusion matrices, and the page with both."""
