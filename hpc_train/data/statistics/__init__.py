"""`hpc-train stats`: mean, standard deviation and range of each channel, and the number of pixels of each class."""

from hpc_train.data.statistics.file import load_statistics
from hpc_train.data.statistics.moments import Statistics

__all__ = ["Statistics", "load_statistics"]
