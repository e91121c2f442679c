"""How long does training stand still for a checkpoint? hpc-train bench checkpoints --size 1000 --bandwidth 200

One process trains a stack of dense layers with Adam, and saves its state in two ways that take turns:

    synchronous   the state is copied and written between two steps
    beside        as trainers do it: the state is copied between two steps, and a thread writes it

Blocked is the time between two steps; until on disk goes on until the file is synced and renamed. Steps beside the
writing may be slower than others, as it takes time of the cores and of the memory: the last line compares them.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hpc_train.console import say
from hpc_train.errors import UserError

_WIDTH = 1024
# Weights and biases of a layer in float32, and Adam's two averages of each.
_LAYER = 3 * 4 * _WIDTH * (_WIDTH + 1)
_BATCH, _ALONE = 8, 5


@dataclass(frozen=True)
class CheckpointBench:
    """Measure for how long a checkpoint stops the training, on a disk of yours or one that is slowed down."""

    folder: Path = Path()
    """Folder on the disk to measure; checkpoints are written to a new folder in it, which is removed."""
    size: float = 1000.0
    """MB of state: weights and Adam's averages."""
    bandwidth: float | None = None
    """MB/s to which writing is slowed down, in this process; by default it is as fast as the disk."""
    rounds: int = 5
    """Checkpoints in each way."""


def run(options: CheckpointBench) -> None:
    """Measure and print.

    Raises:
        UserError: impossible options, or the folder cannot be written.
    """
    for option in ("size", "bandwidth", "rounds"):
        value = getattr(options, option)
        if value is not None and value <= 0:
            raise UserError(f"--{option} is {value}; it must be above 0")
    if not options.folder.is_dir():
        raise UserError(f"--folder {options.folder} does not exist; make it first")
    slow = "" if options.bandwidth is None else f", writing slowed down to {options.bandwidth:g} MB/s"
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, _slowed(options.bandwidth):
        measured = _measure(max(1, round(options.size * 1e6 / _LAYER)), Path(folder), options.rounds)
    say(f"{measured.pop('megabytes')[0]:,.0f} MB of state{slow}; medians of {options.rounds}")
    say("way           blocked   until on disk")
    at = {name: median(seconds) for name, seconds in measured.items()}
    whole = at["synchronous"]
    say(f"synchronous {whole:7.3f} s {whole:13.3f} s")
    say(f"beside      {at['beside']:7.3f} s {at['on disk']:13.3f} s")
    say(f"beside, the training is blocked for {at['beside'] / whole:.1%} of the time of a synchronous checkpoint")
    say(f"the copy alone: {at['new copy']:.3f} s into new memory, {at['copy']:.3f} s into that of the one before")
    say(f"a step: {at['step'] * 1e3:.0f} ms, beside the writing {at['step beside'] * 1e3:.0f} ms")


def _measure(layers: int, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of what `run` prints, by name, and the megabytes of the state."""
    from hpc_train.training import checkpoint
    from hpc_train.training.checkpoint.state import State, copy, state_bytes

    model, step = _model(layers)
    synced: list[float] = []
    copies: list[State] = []
    # What is checked last before a checkpoint gets its name.
    writer = checkpoint.Writer(
        folder, checkpoint.Part(), checkpoint.Keep(1), lambda: synced.append(time.perf_counter())
    )
    progress = checkpoint.Progress()
    measured: dict[str, list[float]] = {"megabytes": [state_bytes(model) / 1e6]}

    def timed(name: str, work: Callable[[], object]) -> None:
        begin = time.perf_counter()
        work()
        measured.setdefault(name, []).append(time.perf_counter() - begin)

    # The first one of a run takes new memory.
    writer.save(model, progress)
    writer.wait()
    for number in range(1, 2 * rounds, 2):
        for _ in range(_ALONE):
            timed("step", step)
        progress.step = number
        timed("synchronous", lambda: checkpoint.save(folder, model, progress))
        step()
        timed("new copy", lambda: copies.append(copy(model, progress, checkpoint.Part())))
        timed("copy", lambda: copy(model, progress, checkpoint.Part(), copies[0]))
        copies.clear()
        progress.step, begin = number + 1, time.perf_counter()
        synced.clear()
        timed("beside", lambda: writer.save(model, progress))
        while not synced:
            timed("step beside", step)
            writer.raise_error()
        writer.wait()
        measured.setdefault("on disk", []).append(synced[0] - begin)
    return measured


def _model(layers: int):
    """A model with this many layers, and what makes a step of its training; the first one is made."""
    import keras
    import numpy as np

    model = keras.Sequential([keras.Input((_WIDTH,)), *(keras.layers.Dense(_WIDTH) for _ in range(layers))])
    model.compile(keras.optimizers.Adam(1e-6), "mse", jit_compile=False)
    batch = np.ones((_BATCH, _WIDTH), "float32")

    def step() -> None:
        model.train_on_batch(batch, batch)

    step()
    return model, step


@contextmanager
def _slowed(bandwidth: float | None) -> Iterator[None]:
    """Inside the block, checkpoints are written at this many MB/s, or slower if the disk is."""
    original, free = os.pwrite, 0.0

    def pwrite(descriptor, data, place):
        nonlocal free
        free = max(free, time.perf_counter()) + len(data) / (bandwidth * 1e6)
        written = original(descriptor, data, place)
        time.sleep(max(0.0, free - time.perf_counter()))
        return written

    if bandwidth is not None:
        os.pwrite = pwrite
    try:
        yield
    finally:
        os.pwrite = original
