"""Where a thread stands: the collective in which it waits, and the line of the user's script that led there."""

import sys
import sysconfig
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType

_INSTALLED = ("site-packages", "dist-packages")
_LIBRARIES = (Path(__file__).parents[2], Path(sysconfig.get_path("stdlib")))


@dataclass(frozen=True)
class Standing:
    """A call that may wait for other ranks."""

    frame: FrameType
    """The call itself: a later call of the same function has another frame."""
    operation: str
    """Horovod's operation, or "a step" for a compiled function that holds one."""
    line: str
    """FILE:LINE of the user's own code."""

    def __str__(self) -> str:
        return f"{self.operation} ({self.line})"


def standing(thread: int | None = None) -> Standing | None:
    """The call of Horovod in which a thread is, the main one by default; None where it does something else."""
    frame = sys._current_frames().get(thread or threading.main_thread().ident or 0)
    innermost = frame
    for _ in range(8):
        if frame is None:
            return None
        if operation := _operation(frame):
            return Standing(frame, operation, _users_line(innermost))
        frame = frame.f_back
    return None


def _operation(frame: FrameType) -> str | None:
    name = frame.f_code.co_name
    if name.startswith("horovod_"):
        # TensorFlow makes these functions when it loads Horovod.
        word = frame.f_locals.get("name")
        return f"Horovod's {name.removeprefix('horovod_')}" + (f" {word!r}" if word else "")
    if name == "quick_execute" and _holds_horovod(frame.f_locals.get("op_name")):
        return "a step that averages gradients"
    return None


@lru_cache(maxsize=64)
def _holds_horovod(function) -> bool:
    """Whether a function of TensorFlow's eager context runs operations of Horovod, itself or in those that it calls."""
    from tensorflow.python.eager import context

    waiting, seen = [function], set()
    while waiting:
        name = waiting.pop()
        if name in seen or not context.context().has_function(name):
            continue
        seen.add(name)
        for node in context.context().get_function_def(name).node_def:
            if node.op.startswith("Horovod"):
                return True
            for value in node.attr.values():
                waiting += [value.func.name] if value.func.name else [f.name for f in value.list.func]
    return False


def _users_line(frame: FrameType | None) -> str:
    last = frame
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        library = any(part in _INSTALLED for part in path.parts) or any(path.is_relative_to(p) for p in _LIBRARIES)
        if path.is_absolute() and not library:
            return f"{path.name}:{frame.f_lineno}"
        last, frame = frame, frame.f_back
    return f"{Path(last.f_code.co_filename).name}:{last.f_lineno}" if last else "?"
