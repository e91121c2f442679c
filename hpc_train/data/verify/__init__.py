"""`hpc-train verify`: read all of a data set and list what is broken."""
