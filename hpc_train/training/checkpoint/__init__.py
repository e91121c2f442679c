"""Checkpoints: every variable and the progress of a training, written beside the training and read when it resumes."""

from hpc_train.faces import lazy

_HOME = {
    "Keep": "folder",
    "Part": "state",
    "Progress": "state",
    "Writer": "writer",
    "agree_on_parts": "writer",
    "last_whole": "folder",
    "load": "file",
    "newest": "folder",
    "place": "folder",
    "save": "folder",
    "step_of": "folder",
}

__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
