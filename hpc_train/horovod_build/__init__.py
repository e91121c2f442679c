"""Builds Horovod for this machine's MPI, CUDA and TensorFlow, fixes its launcher, and tests the result.

Horovod's last release (0.28.1, 2023) does not compile with today's TensorFlow, nor start with today's launchers.
"""
