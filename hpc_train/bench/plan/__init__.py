"""`hpc-train bench plan`: what planning costs a rank of many, and how random each order is."""
