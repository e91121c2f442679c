"""`hpc-train stats`: mean, deviation and range of each channel, and how often each class occurs."""

from hpc_train.data.statistics.file import load_statistics
from hpc_train.data.statistics.moments import Statistics

__all__ = ["Statistics", "load_statistics"]
