"""`hpc-train inspect`: what a data set holds, how it is stored, and what the reader will do with it."""
