"""The path that all trainers share, from options and a network to a finished run folder.

A trainer is a dataclass of options and a task::

    from hpc_train import command_line, training

    class Options(training.Options): ...

    def run(options):
        training.train(options, training.Task("mine", build))

TensorFlow and Horovod are imported when a training begins.
"""

import importlib

_HOME = {"Options": "options", "Task": "task", "train": "fit"}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"hpc_train.training.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
