"""Where threads stand: the collective in which one waits, and the line of the user's script that led there."""

import linecache
import re
import sys
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType

_INSTALLED = ("site-packages", "dist-packages")
# Of the library, where a thread waits for another one.
_THREADS = ("threading.py", "queue.py", "_base.py", "connection.py", "selectors.py")
_PACKAGE, _PYTHON = Path(__file__).parents[1], Path(sysconfig.get_path("stdlib"))


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


def place() -> dict[str, str]:
    """Where the main thread is.

    Returns:
        line: FILE:LINE of the user's own code, or of a library's where there is none; source: the text of that line;
        waits: what of another thread it waits for, or empty.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return {"line": "?", "source": "", "waits": ""}
    users = _users_frame(frame)
    source = linecache.getline(users.f_code.co_filename, users.f_lineno).strip()
    lock = frame is users and re.search(r"\bacquire\(|^with\b.*lock", source, re.IGNORECASE)
    return {"line": _users_line(frame), "source": source, "waits": "lock" if lock else "thread" if _idle(frame) else ""}


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def agrees() -> bool:
    """Whether the main thread waits until all ranks have agreed on a stop."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return any(one.f_code.co_name == "end_step" and _is_ours(one) for one in _outwards(frame))


def _is_ours(frame: FrameType, room: str = "") -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(_PACKAGE / room)


def own_lines() -> list[str]:
    """Where other threads run code of the user's, as TensorFlow's do that call Python: FILE:LINE of each."""
    main = threading.main_thread().ident
    frames = [frame for thread, frame in sys._current_frames().items() if thread != main]
    return sorted({_users_line(frame) for frame in frames if any(_is_users(one) for one in _outwards(frame))})


def read_lines() -> list[str]:
    """Where threads that read samples are inside a call that has not returned: FILE:LINE of each."""
    main = threading.main_thread().ident
    frames = [frame for thread, frame in sys._current_frames().items() if thread != main and not _idle(frame)]
    return sorted({_line(_outside_python(frame)) for frame in frames if any(_reads(one) for one in _outwards(frame))})


def _idle(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).name in (*_THREADS, "thread.py")


def _outside_python(frame: FrameType) -> FrameType:
    """The innermost frame outside Python's own library."""
    return next((one for one in _outwards(frame) if not _is_pythons(Path(one.f_code.co_filename))), frame)


def _is_pythons(path: Path) -> bool:
    return path.is_relative_to(_PYTHON) and not any(part in _INSTALLED for part in path.parts)


def _reads(frame: FrameType) -> bool:
    return _is_ours(frame, "data")


def _line(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


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
    users = frame and _users_frame(frame)
    return _line(users) if users else "?"


def _users_frame(frame: FrameType) -> FrameType:
    """The innermost frame of the user's own code, or the outermost of all."""
    for last in _outwards(frame):
        if _is_users(last):
            break
    return last


def _is_users(frame: FrameType) -> bool:
    path = Path(frame.f_code.co_filename)
    library = any(part in _INSTALLED for part in path.parts) or any(
        path.is_relative_to(root) for root in (_PACKAGE, _PYTHON)
    )
    # A script that was started by a relative path has it here; code without a file has none.
    return not library and not frame.f_code.co_filename.startswith("<")
