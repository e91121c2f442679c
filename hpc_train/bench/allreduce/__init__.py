"""`hpc-train bench allreduce`: latency and bandwidth of the all-reduce that carries gradients, by message size."""
