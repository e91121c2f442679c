"""`hpc-train prepare csv` and `prepare parquet`: the columns of tables as inputs and targets."""
