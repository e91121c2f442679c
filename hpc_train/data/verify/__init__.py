"""`hpc-train verify`: reads all of a data set and names what is broken."""
