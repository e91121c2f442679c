"""The path that all trainers share, from options and a network to a finished run folder.

A trainer is a dataclass of options and a task::

    from hpc_train import command_line, training

    class Options(training.Options): ...

    def run(options):
        training.train(options, training.Task("mine", build))

TensorFlow and Horovod are imported when a training begins.
"""

from hpc_train.faces import lazy

_HOME = {"Options": "options", "Task": "task", "train": "fit"}

__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
