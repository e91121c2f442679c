"""The same samples in formats that people copy them into, for `hpc-train bench input`."""
