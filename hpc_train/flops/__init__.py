"""`hpc-train flops`: the floating-point operations of a network, and the rate at which a run computes them."""
