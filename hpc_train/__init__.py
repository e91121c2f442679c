"""Distributed training of Keras models on supercomputers, with Horovod: one GPU a rank."""

__version__ = "0.2.0"
