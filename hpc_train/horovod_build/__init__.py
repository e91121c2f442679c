"""Builds Horovod for this machine's MPI, CUDA and TensorFlow, mends its launcher, and proves the result.

Upstream's last release (0.28.1, 2023) neither compiles against nor launches with what is current today.
"""
