"""Horovod's timeline: what a run's communication waits for. `summarise(path)` gives the figures."""

from hpc_train.timeline.summary import summarise

__all__ = ["summarise"]
