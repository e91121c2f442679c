"""Checkpoints beside training: the state is copied in the step, and a thread writes the copy."""

import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.whole import temporary_file, writing
from hpc_train.parallel.collectives import agree, broadcast_object, everywhere, gather_objects
from hpc_train.parallel.world import World
from hpc_train.training.checkpoint.folder import Keep, publish
from hpc_train.training.checkpoint.state import Part, Progress, State, copy, state_bytes
from hpc_train.units import MIB
from hpc_train.watch.record import RECORD

# A state of this size is written in parts of at least half of it, by as many ranks.
_LARGE = 4096 * MIB
# Seconds for which part 0 waits for others after its own; the same after an error; and until a new file is seen.
_PATIENCE, _HURRY, _SEEN = 600.0, 20.0, 10.0


class Writer:
    """Writes the checkpoints of a rank, or its parts of them, one at a time; it keeps the memory of the copy.

    Args:
        folder: of the checkpoints.
        part: of this rank; it may be none.
        keep: which checkpoints stay.
        check: see `publish`.
        note: takes the step of a checkpoint when its state is copied, and gives what is called once it is on disk.
    """

    def __init__(
        self,
        folder: Path,
        part: Part,
        keep: Keep,
        check: Callable[[], None],
        note: Callable[[int], Callable[[], None]] = lambda step: lambda: None,
    ):
        self.folder, self.part, self.keep, self.check, self.note = folder, part, keep, check, note
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._state: State | None = None
        self._patience = _PATIENCE

    def save(self, model, progress: Progress) -> None:
        """Copy the state and begin to write it; the one before is on disk first.

        Raises:
            UserError: the one before could not be written.
        """
        if self.part.number is None:
            return
        self.wait()
        begun = time.monotonic()
        self._state = copy(model, progress, self.part, self._state)
        work = self._state, self.note(progress.step), begun
        self._thread = threading.Thread(target=self._write, args=work, name="hpc-train-checkpoint", daemon=True)
        self._thread.start()

    def raise_error(self) -> None:
        """Raise the error of the last one, if it has ended with one; do not wait."""
        if self._error:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the last one is on disk.

        Raises:
            UserError: it could not be written.
        """
        if self._thread:
            self._thread.join()
            self._thread = None
        self.raise_error()

    def wait_after_an_error(self) -> None:
        """Wait as `wait` does, but not for ranks that may have ended; print what goes wrong."""
        self._patience = _HURRY
        try:
            self.wait()
        except Exception as error:
            say(f"warning: {error}")

    def _write(self, state: State, note: Callable[[], None], begun: float) -> None:
        try:
            publish(self.folder, state, self.keep, self.check, lambda: self._patience)
            RECORD.saved = time.monotonic() - begun
            note()
        except BaseException as error:
            self._error = error


def agree_on_parts(wanted: int, model, folder: Path, world: World) -> Part:
    """This rank's part of the checkpoints to come. Collective.

    Args:
        wanted: number of parts, at most one a rank; 0 for one, and for more where the state is large.
        model: with its optimizer, both built.
        folder: of the checkpoints, which exists on rank 0.
        world: the ranks.

    Raises:
        UserError: parts are wanted, and some ranks do not see the folder.
    """
    large = state_bytes(model)
    of = min(world.size, wanted or (2 * large // _LARGE if large >= _LARGE else 1))
    if of == 1:
        return Part(0 if world.is_root else None)
    # Spread over the nodes, whose ranks are neighbours.
    writers = [number * world.size // of for number in range(of)]
    number = writers.index(world.rank) if world.rank in writers else None
    file = None
    with agree(world), writing(folder):
        if world.is_root:
            file = temporary_file(folder / "seen")
    path, token = broadcast_object((file, uuid.uuid4().hex[:6]))
    seen = number is None or _sees(path)
    all_see = everywhere(seen, "hpc_train.parts")
    if file:
        file.unlink(missing_ok=True)
    if not all_see:
        sees = gather_objects(seen)
        blind = f"rank {sees.index(False)} does not see {folder} as rank 0 does, or may not write there"
        if wanted:
            raise UserError(f"--checkpoint-parts {wanted}: {blind}; put it on storage that all nodes share").agreed()
        if world.is_root:
            say(f"note: {blind}: rank 0 writes the checkpoints alone")
        return Part(0 if world.is_root else None)
    return Part(number, of, token)


def _sees(path: Path) -> bool:
    until = time.monotonic() + _SEEN
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.1)
    return path.exists() and os.access(path.parent, os.W_OK)
