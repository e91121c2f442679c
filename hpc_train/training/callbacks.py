"""Callbacks of a training run: learning rate, checkpoints, best model, metrics file, progress line."""

import math
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np

from hpc_train.console import say
from hpc_train.data.catalogue.unchanged import Unchanged
from hpc_train.errors import UserError
from hpc_train.flops.work import Work
from hpc_train.optim.ema import Averages
from hpc_train.parallel.metrics import assign_states, join_states, merge_states, states
from hpc_train.parallel.saving import save_model
from hpc_train.parallel.sync import SlowRanks, average_local_state
from hpc_train.parallel.world import World
from hpc_train.training.assembly import Assembly
from hpc_train.training.checkpoint.state import Progress
from hpc_train.training.checkpoint.writer import Writer
from hpc_train.training.input_wait import InputWait
from hpc_train.training.monitor import Monitor
from hpc_train.training.run_folder import Run
from hpc_train.training.stopping import Agreement, Requests, Stopped
from hpc_train.units import rate
from hpc_train.watch.hang import HANG
from hpc_train.watch.record import CHECKPOINT, RECORD


class Position(keras.callbacks.Callback):
    """Updates `progress`, sets the learning rates of each step, and stops when the loss is not finite.

    Args:
        progress: of the training.
        assembly: what is trained.
        world: the ranks.

    Raises:
        UserError: on the ranks whose loss is not finite; the reader has named samples that are not.
    """

    def __init__(self, progress: Progress, assembly: Assembly, world: World):
        super().__init__()
        self.progress, self.assembly, self.world = progress, assembly, world
        self.plan = assembly.plan

    def on_train_batch_begin(self, batch, logs=None):
        self.assembly.rates.set(self.progress.epoch + self.progress.position / self.plan.samples)

    def on_train_batch_end(self, batch, logs=None):
        self.progress.step += 1
        self.progress.position += self.plan.global_batch
        if self.progress.metrics:
            # Resumed inside an epoch: take in the states of the steps before, on one rank only. Keras makes the
            # metrics' variables in the first step, so this cannot come earlier.
            if self.world.is_root:
                assign_states(self.model, join_states(self.model, states(self.model), self.progress.metrics))
            self.progress.metrics = []
        for name, value in ({"loss": logs["loss"]} if "loss" in (logs or {}) else logs or {}).items():
            if np.ndim(value) == 0 and not math.isfinite(value):
                where = f"step {self.progress.step} (epoch {self.progress.epoch + 1})"
                raise UserError(
                    f"the {name} is {value} at {where}; lower --lr or lengthen --warmup-epochs, and check that the "
                    "inputs are scaled"
                )

    def on_epoch_end(self, epoch, logs=None):
        self.progress.epoch, self.progress.position = epoch + 1, 0


class DataUnchanged(keras.callbacks.Callback):
    """Looks after each epoch whether the data's files have changed.

    Args:
        splits: those of the training.

    Raises:
        UserError: on the rank that finds a change; the end of that epoch is not saved.
    """

    def __init__(self, splits: list[Unchanged]):
        super().__init__()
        self.splits = splits

    def on_epoch_end(self, epoch, logs=None):
        for split in self.splits:
            split.check()


class Best(keras.callbacks.Callback):
    """Saves the best model so far, and stops when it has not improved for `patience` epochs.

    Every rank decides by the same exact metric, so all stop together. Without a monitor it does nothing.
    """

    def __init__(
        self,
        run: Run,
        world: World,
        progress: Progress,
        monitor: Monitor | None,
        patience: int | None,
        averages: Averages,
    ):
        super().__init__()
        self.run, self.world, self.monitor, self.patience, self.averages = run, world, monitor, patience, averages
        self.memory = progress.callbacks.setdefault("best", {"value": None, "epoch": 0})

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor is None:
            return
        value = (logs or {})[f"val_{self.monitor.name}"]
        if self.monitor.better(value, self.memory["value"]):
            self.memory.update(value=value, epoch=epoch + 1)
            if self.world.is_root:
                self.run.check_owner()
                with RECORD.during(CHECKPOINT), self.averages.in_place():
                    save_model(self.model, self.run.best)
        elif self.exhausted(epoch + 1):
            self.model.stop_training = True

    def exhausted(self, epochs: int) -> bool:
        """Whether the last `patience` of these epochs brought no improvement."""
        return self.patience is not None and epochs - self.memory["epoch"] >= self.patience


class Checkpoints(keras.callbacks.Callback):
    """Begins to write a checkpoint every `every` steps, after every epoch, and when the ranks are asked to stop.

    It is written beside the training. The next one, a stop, an error and the end of `fit` wait until it is on disk.

    Raises:
        Stopped: on every rank before the same step of training or validation, after the checkpoint.
        UserError: on the rank whose writing has failed, at its next step.
    """

    def __init__(
        self, writer: Writer, world: World, progress: Progress, every: int, requests: Requests, averages: Averages
    ):
        super().__init__()
        self.writer, self.world, self.progress, self.every, self.requests = writer, world, progress, every, requests
        self.averages = averages
        self.training, self.validation = Agreement(requests, world), Agreement(requests, world)
        self.written = progress.step
        self._trained: list[np.ndarray] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.training.begin()

    def on_train_batch_begin(self, batch, logs=None):
        # Here and not at the end of a batch: now every callback has seen the step before.
        signals = self.training.signals()
        progress = self.progress
        due = self.every and progress.position and progress.step % self.every == 0
        if (due or signals) and progress.step != self.written:
            self._save(merge_states(self.model, states(self.model), "checkpoint"))
        self._look(signals)

    def on_train_batch_end(self, batch, logs=None):
        self.requests.rest()

    def on_test_begin(self, logs=None):
        # Validation resets the metrics: this is the last moment to read those of training.
        self._trained = merge_states(self.model, states(self.model), "trained")
        self.validation.begin()

    def on_test_batch_begin(self, batch, logs=None):
        signals = self.validation.signals()
        if signals and self.progress.step != self.written:
            self._save(self._trained)
        self._look(signals)

    def on_test_batch_end(self, batch, logs=None):
        self.requests.rest()

    def on_epoch_end(self, epoch, logs=None):
        self._save([])

    def _save(self, metrics: list[np.ndarray]) -> None:
        self.requests.rest()
        HANG.expect()
        average_local_state(self.model)
        with RECORD.during(CHECKPOINT), self.averages.out_of_place():
            self.writer.save(self.model, replace(self.progress, metrics=metrics))
        self.written = self.progress.step

    def on_train_end(self, logs=None):
        self._finish()

    @contextmanager
    def complete(self) -> Iterator[None]:
        """If an error ends the block, the last checkpoint is on disk before it goes on."""
        try:
            yield
        except Exception:
            with RECORD.during(CHECKPOINT):
                self.writer.wait_after_an_error()
            raise

    def _look(self, signals: str) -> None:
        if signals:
            self._finish()
            raise Stopped(signals)
        self.writer.raise_error()

    def _finish(self) -> None:
        self.requests.rest()
        HANG.expect()
        with RECORD.during(CHECKPOINT):
            self.writer.wait()


class Report(keras.callbacks.Callback):
    """On rank 0: prints one progress line for the job, and writes a line an epoch to metrics.jsonl.

    Throughput is that of all ranks, from the end of the first step (which compiles) to the end of the last step.
    """

    def __init__(
        self,
        run: Run,
        world: World,
        progress: Progress,
        assembly: Assembly,
        epochs: int,
        shown: tuple[str, ...] | None,
        work: Work,
        wait: InputWait | None = None,
        slow: SlowRanks | None = None,
    ):
        super().__init__()
        self.run, self.world, self.progress, self.epochs = run, world, progress, epochs
        self.plan, self.rates, self.work = assembly.plan, assembly.rates, work
        self.wait, self.slow = wait, slow
        self.shown = shown if shown is None else ("loss", *shown)
        self.terminal = sys.stdout.isatty()
        self.throughput = 0.0
        self._shown = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()
        self._first: float | None = None
        self._steps, self._samples = 0, self.progress.position

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self._samples = self.progress.position
        if self._first is None:
            self._first = self._shown = now
            return
        self._steps += 1
        self.throughput = self._steps * self.plan.global_batch / (now - self._first)
        if now - self._shown > (0.2 if self.terminal else 10):
            self._shown = now
            self._show(logs)

    def _show(self, logs):
        position, samples = self.progress.position, self.plan.samples
        bar = ("=" * (20 * position // samples) + ">").ljust(20, ".")[:20]
        left = (samples - position) / self.throughput
        waited = f"input wait {self.wait.share:.0%}  " if self.wait and self.wait.share is not None else ""
        text = (
            f"epoch {self.progress.epoch + 1}/{self.epochs} [{bar}] {position}/{samples}  "
            f"{self._pairs(logs)}  {rate(self.throughput)} samples/s  {waited}{left:.0f} s left"
        )
        columns = shutil.get_terminal_size().columns - 1
        say(f"\r{text[:columns]:{columns}}" if self.terminal else text, end="" if self.terminal else "\n")

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._begin
        clear = f"\r{'':{shutil.get_terminal_size().columns - 1}}\r" if self.terminal else ""
        speed = f"{rate(self.throughput)} samples/s" if self.throughput else "one step"
        late = ""
        if self.slow and self.slow.found:
            late = f"  {self.slow.text}"
            first = self.slow.found[0]
            self.run.add_slow(epoch + 1, first, self.slow.places[first.rank])
        say(f"{clear}epoch {epoch + 1}/{self.epochs}  {self._pairs(logs)}  {speed}  {seconds:.1f} s{late}")
        self.run.check_owner()
        self.run.add_metrics(
            {
                "epoch": epoch + 1,
                "step": self.progress.step,
                "samples": self._samples,
                "ranks": self.world.size,
                **{name: float(value) for name, value in (logs or {}).items()},
                **self.rates.now(),
                **self._scaling(),
                "samples_per_s": float(f"{self.throughput:.4g}"),
                **self.work.rates(self.throughput),
                "seconds": round(seconds, 3),
            }
        )

    def _scaling(self) -> dict[str, float]:
        """The loss scale where it adapts; where it is fixed, the number of steps that overflowed and were skipped."""
        scaling = self.model.optimizer
        scale, skipped = getattr(scaling, "dynamic_scale", None), getattr(scaling, "skipped", None)
        values = {"loss_scale": scale, "skipped_steps": skipped}
        return {name: float(value) for name, value in values.items() if value is not None}

    def _pairs(self, logs) -> str:
        shown = {name: value for name, value in (logs or {}).items() if self._is_shown(name.removeprefix("val_"))}
        return "  ".join(f"{name} {value:.4f}" for name, value in shown.items())

    def _is_shown(self, name: str) -> bool:
        return name != "input_wait" and (self.shown is None or name in self.shown)
