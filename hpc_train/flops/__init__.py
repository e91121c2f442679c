"""`hpc-train flops`: the floating-point operations of a network, and what a run makes of them a second."""
