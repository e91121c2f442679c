"""The folder of a run's checkpoints: which there are, which is the newest that is whole, and which are deleted."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.whole import NotWritten, atomic_path, create_once, writing
from hpc_train.training.checkpoint.file import damage, part_path, write
from hpc_train.training.checkpoint.state import Part, Progress, State, copy

_PART = re.compile(r"part-(\d{10})-([0-9a-f]{6})-\d+\.h5")
# In a folder that --checkpoints names: which run has it.
_RUN = ".run"
_LOOK = 0.1


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay.

    Args:
        newest: how many of the newest.
        every: besides them, the first one at or after each multiple of this many steps; 0 for none.
    """

    newest: int = 2
    every: int = 0

    def kept(self, steps: list[int]) -> set[int]:
        """Those of these steps, in rising order, that stay; what has been deleted before changes nothing."""
        stay, last = set(steps[-self.newest :]), 0
        for step in steps if self.every else ():
            if step // self.every > last:
                last = step // self.every
                stay.add(step)
        return stay


def save(folder: Path, model, progress: Progress) -> Path:
    """Write a whole checkpoint at once, and delete all but the newest two; see `publish`. One rank calls it."""
    return publish(folder, copy(model, progress, Part()), Keep())


def publish(
    folder: Path,
    state: State,
    keep: Keep,
    check: Callable[[], None] = lambda: None,
    patience: Callable[[], float] = lambda: 0.0,
) -> Path:
    """Write a checkpoint, or a part of one, whole or not at all; part 0 completes it, and deletes old ones.

    Args:
        folder: of the checkpoints.
        state: what is written.
        keep: which ones stay.
        check: raises an error if the folder is no longer this process's; called last before the checkpoint is there.
        patience: gives the seconds for which part 0 waits for the others once it is on disk itself.

    Returns:
        The path of the file.

    Raises:
        NotWritten: the storage fails, or other parts do not come.
    """
    head, part = folder / f"step-{state.step:010d}.h5", state.part
    path = part_path(head, part.token, part.number) if part.number else head
    with atomic_path(path, needed=state.bytes) as temporary:
        write(temporary, state)
        if path == head:
            _wait_for_parts(head, state, patience)
        check()
    if path == head:
        _delete_old(folder, state, keep)
    return path


def place(checkpoints: Path, folder: Path | None) -> None:
    """Make `checkpoints` of a run a link to a folder elsewhere, where one is given.

    Raises:
        UserError: it leads to a disk that is not there, is elsewhere already, or the folder is another run's.
    """
    there = checkpoints.resolve()
    if checkpoints.is_symlink() and not there.is_dir():
        raise UserError(
            f"{checkpoints} leads to {there}, which is not there: mount its disk, or remove the link to begin again"
        )
    if folder is None or there == folder.resolve():
        return
    if checkpoints.exists():
        raise UserError(f"--checkpoints {folder}: this run has its checkpoints in {there}; leave the option out")
    mine = str(checkpoints.absolute())
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not create_once(folder / _RUN, mine) and (other := (folder / _RUN).read_text()) != mine:
            raise UserError(f"--checkpoints {folder} belongs to {other}; give each run a folder of its own")
        if in_folder(folder):
            raise UserError(f"--checkpoints {folder} holds checkpoints of another run; give an empty folder")
        checkpoints.symlink_to(folder.resolve())


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None where there are none. One rank calls it.

    Damaged ones that are newer are set aside under another name, with a line.

    Raises:
        UserError: there are checkpoints and none is whole, or one cannot be read.
    """
    path, damaged = last_whole(folder)
    if damaged and not path:
        name, why = damaged[0]
        raise UserError(
            f"{folder}: no checkpoint is whole ({name.name}: {why}); put one back, or start a new run in another "
            "folder (--run)"
        )
    for other, why in damaged:
        aside = _aside(other)
        other.replace(aside)
        say(f"the checkpoint {other} is damaged ({why}); it is now {aside.name}")
    return path


def last_whole(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """(the newest checkpoint that is whole or None, the newer ones with what is wrong with them).

    Raises:
        UserError: one cannot be read.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(in_folder(folder)):
        if not (why := damage(path)):
            return path, damaged
        damaged.append((path, why))
    return None, damaged


def in_folder(folder: Path) -> list[Path]:
    """All checkpoints, in the order of their steps."""
    return sorted(path for path in folder.glob("step-*.h5") if re.fullmatch(r"step-\d{10}\.h5", path.name))


def step_of(path: Path | None) -> int:
    """The number of steps before a checkpoint; 0 without one."""
    return int(path.stem.removeprefix("step-")) if path else 0


def _aside(path: Path) -> Path:
    return path.with_name(f"damaged-{path.name}")


def _wait_for_parts(head: Path, state: State, patience: Callable[[], float]) -> None:
    missing, begun = list(range(1, state.part.of)), time.monotonic()
    while missing := [number for number in missing if not part_path(head, state.part.token, number).exists()]:
        if time.monotonic() - begun > patience():
            raise NotWritten(
                f"cannot write {head}: part {missing[0]} of its {state.part.of} parts ({len(missing)} are missing) did "
                f"not come within {patience():.0f} s; make sure that all nodes see {head.parent}, or give "
                "--checkpoint-parts 1"
            )
        time.sleep(_LOOK)


def _delete_old(folder: Path, state: State, keep: Keep) -> None:
    """Delete what does not stay; the file that names a checkpoint goes before its parts."""
    paths = in_folder(folder)
    stay = keep.kept([step_of(path) for path in paths])
    for path in paths:
        if step_of(path) not in stay:
            _unlink(path)
    for path in folder.glob("part-*.h5"):
        if not (name := _PART.fullmatch(path.name)):
            continue
        head = folder / f"step-{name[1]}.h5"
        # Later parts are being written.
        if int(name[1]) == state.step:
            old = name[2] != state.part.token
        else:
            old = int(name[1]) < state.step and not (head.exists() or _aside(head).exists())
        if old:
            _unlink(path)


def _unlink(path: Path) -> None:
    with writing(path):
        path.unlink(missing_ok=True)
