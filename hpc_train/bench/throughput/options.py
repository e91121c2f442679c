"""The command line of `hpc-train bench throughput`: the options of a trainer, and those of the measurement."""

import dataclasses
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from hpc_train import training
from hpc_train.data.options import is_synthetic
from hpc_train.errors import UserError
from hpc_train.trainers import TRAINERS, Trainer

BARE = "bare", "bare alone"
WAYS = "fit", "fit alone", "device", "device alone", "input", *BARE
# Only where it is asked for.
UNWATCHED = "unwatched"


@dataclass(frozen=True)
class NoDifference:
    """Options of training that change nothing in a step: fixed, and not on the command line."""

    run: tyro.conf.Suppress[Path | None] = None
    resume: tyro.conf.Suppress[bool] = False
    epochs: tyro.conf.Suppress[int] = 10**6
    lr: tyro.conf.Suppress[float] = 1e-4
    lr_scaling: tyro.conf.Suppress[str] = "none"
    base_batch: tyro.conf.Suppress[int] = 1
    warmup_epochs: tyro.conf.Suppress[float] = 0.0
    decay: tyro.conf.Suppress[str] = "none"
    decay_at: tyro.conf.Suppress[tuple[float, ...]] = training.Options.decay_at
    decay_power: tyro.conf.Suppress[float] = training.Options.decay_power
    patience: tyro.conf.Suppress[int | None] = None
    monitor: tyro.conf.Suppress[str | None] = None
    checkpoint_every: tyro.conf.Suppress[int] = 0
    keep: tyro.conf.Suppress[int] = training.Options.keep
    keep_every: tyro.conf.Suppress[int] = 0
    checkpoints: tyro.conf.Suppress[Path | None] = None
    checkpoint_parts: tyro.conf.Suppress[int] = 0
    histograms: tyro.conf.Suppress[bool] = False
    pictures: tyro.conf.Suppress[int] = 0
    profile: tyro.conf.Suppress[tuple[int, int] | None] = None


@dataclass(frozen=True)
class BenchOptions(NoDifference):
    """What to measure, and how often."""

    GROUP = "benchmark"

    ways: tuple[Literal[(*WAYS, UNWATCHED)], ...] = ()
    """What to measure. fit: the trainer as it is; device: on one batch that stays on the device; input: reading alone;
    bare, for mnist: a hand-written loop. alone: the same without Horovod, all ranks at the same time. unwatched: fit
    without what looks for hangs and slow ranks in each step. By default all ways that the other options allow, except
    unwatched."""
    steps: int = 60
    """Counted steps in each round."""
    warmup: int = 2
    """Steps at the beginning of each round that are not counted."""
    rounds: int = 7
    """Rounds. Each has every way once, in an order that rotates. One more goes before them, and is not counted."""
    timeline: bool = True
    """Record one more round in Horovod's timeline, if several ranks run on MPI."""
    output: Path | None = None
    """JSON file for the figures; by default throughput.json in a new folder under runs/."""

    TRAINER: ClassVar[str]
    MODULE: ClassVar

    def of_trainer(self):
        """The options of the trainer, without those of the measurement."""
        kind = self.MODULE.Options
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(kind)}
        if "build" in values:
            # A model that is compiled already has its own rate, and refuses another.
            values["lr"] = kind.lr
        return kind(**values)

    def recorded(self) -> dict:
        """The options that the command line has, by name."""
        fixed = {field.name for field in dataclasses.fields(NoDifference)}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in fixed}

    def measured_ways(self) -> tuple[str, ...]:
        """The ways to measure, in the order of `WAYS`, and then "unwatched".

        Raises:
            UserError: a way that does not go with the other options.
        """
        bare = self.TRAINER == "mnist" and self.accumulate == 1 and self.lag == 0 and not self.sync_batch_norm
        if not bare and (wrong := [way for way in self.ways if way in BARE]):
            raise UserError(
                f"--ways {wrong[0]!r}: the hand-written loop is for mnist, without --accumulate, --lag and "
                "--sync-batch-norm; leave it out"
            )
        # Synthetic data are not read.
        without = (UNWATCHED, *(() if bare else BARE), *(("input",) if is_synthetic(self) else ()))
        return tuple(way for way in (*WAYS, UNWATCHED) if (way in self.ways if self.ways else way not in without))

    def check_bench(self) -> None:
        """Check the values and their combinations.

        Raises:
            UserError: some make no sense.
        """
        for option in ("steps", "rounds", "warmup"):
            if getattr(self, option) < 1:
                raise UserError(f"--{option} is {getattr(self, option)}; it must be at least 1")
        if self.output and not self.output.absolute().parent.is_dir():
            raise UserError(f"--output {self.output}: the folder {self.output.parent} does not exist; make it first")
        self.measured_ways()


def _benchmark(trainer: Trainer) -> type:
    """The options of `hpc-train bench throughput TRAINER`."""
    bases = (BenchOptions, trainer.module.Options)
    body = {"__doc__": f"Throughput of {trainer.trains}.", "TRAINER": trainer.name, "MODULE": trainer.module}
    return dataclass(frozen=True)(type(trainer.name.capitalize(), bases, body | {"__module__": __name__}))


BENCHMARKS = {name: _benchmark(trainer) for name, trainer in TRAINERS.items()}
Throughput = reduce(or_, (Annotated[kind, tyro.conf.subcommand(name)] for name, kind in BENCHMARKS.items()))
