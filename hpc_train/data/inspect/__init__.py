"""`hpc-train inspect`: what a data set holds, how it is stored, and how the reader will read it."""
