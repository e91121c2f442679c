"""`hpc-train bench plan`: what planning costs one rank of many, and how random each order is."""
