"""Callbacks that commit an elastic state, and that keep its `batch` and `epoch`, during Keras's `fit`."""

import sys
from dataclasses import dataclass
from types import FrameType

import keras

from hpc_train.console import say
from hpc_train.errors import UserError


@dataclass(frozen=True)
class Progress:
    """By what `state.batch` was counted, when `UpdateBatchStateCallback` last set it."""

    steps: int | None
    """Steps of the epoch; None where Keras does not know."""
    size: int
    """Ranks."""


class _Tracker(keras.callbacks.Callback):
    """Keeps an attribute of the state up to date; a commit asks it first, whatever the order of the callbacks.

    Args:
        state: an elastic state.
    """

    def __init__(self, state):
        super().__init__()
        self.state = state

    def on_train_begin(self, logs=None):
        _trackers(self.state)[self._kind()] = self

    def on_train_end(self, logs=None):
        _trackers(self.state).pop(self._kind(), None)

    def on_batch_end(self, batch, logs=None):
        self.batch_ended(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_ended(epoch)

    def batch_ended(self, batch: int) -> None:
        """Take note that the batch with this index is done; may be called twice."""

    def epoch_ended(self, epoch: int) -> None:
        """Take note that the epoch with this index is done; may be called twice."""

    def _kind(self) -> str:
        return next(base.__name__ for base in type(self).__mro__ if base.__module__ == __name__)


class CommitStateCallback(keras.callbacks.Callback):
    """Commits the state after every `batches_per_commit` batches and after every epoch.

    The commit that ends an attempt, because ranks leave or join, skips the callbacks after this one: put it last. The
    last batch of an epoch is committed with the end of the epoch.

    Args:
        state: an elastic state.
        batches_per_commit: batches from one commit to the next.

    Raises:
        UserError: `batches_per_commit` is not a positive number.
    """

    def __init__(self, state, batches_per_commit=1):
        super().__init__()
        if batches_per_commit < 1:
            raise UserError(f"CommitStateCallback: batches_per_commit must be 1 or more, not {batches_per_commit}")
        self.state = state
        self.batches_per_commit = batches_per_commit
        self.batches_remaining = batches_per_commit
        self._begin = 0

    def on_train_begin(self, logs=None):
        # Ranks that join start here: all must commit after the same batches.
        self.batches_remaining = self.batches_per_commit

    def on_batch_begin(self, batch, logs=None):
        self._begin = batch

    def on_batch_end(self, batch, logs=None):
        for tracker in _trackers(self.state).values():
            tracker.batch_ended(batch)
        self.batches_remaining -= batch + 1 - self._begin
        if self.batches_remaining > 0:
            return
        self.batches_remaining = self.batches_per_commit
        steps = self.params.get("steps")
        if steps is None or batch + 1 < steps:
            self.commit()

    def on_epoch_end(self, epoch, logs=None):
        for tracker in _trackers(self.state).values():
            tracker.epoch_ended(epoch)
        self.commit()

    def commit(self):
        """Commit the state; for subclasses that do more. Collective."""
        self.state.commit()


class UpdateBatchStateCallback(_Tracker):
    """Keeps `state.batch`, the number of batches of this epoch that are done, and starts an attempt where it says.

    After ranks have left or joined, the first epoch of the next `fit` passes over the first `state.batch` batches of
    its data. If the epoch then has another number of steps, because that depends on the number of ranks, it starts at
    the same fraction of the epoch. Rank 0 prints where the epoch goes on, and what cannot be exact.

    Args:
        state: an elastic state.
    """

    def __init__(self, state):
        super().__init__(state)
        self._first = True

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._first = True

    def on_epoch_begin(self, epoch, logs=None):
        if self._first:
            self._first = False
            self._resume()

    def batch_ended(self, batch: int) -> None:
        steps = self.params.get("steps")
        self.state.batch = min(batch + 1, steps) if steps else batch + 1
        self.state._progress = Progress(steps, _size())

    def epoch_ended(self, epoch: int) -> None:
        self.state.batch = 0

    def _resume(self) -> None:
        done = self.state.batch
        if not done:
            return
        if getattr(self.state, "_progress", ()) is None:
            self._tell(
                f"the elastic state starts with batch={done}, but no batch is done: the epoch starts at its first"
            )
            return
        steps = self.params.get("steps")
        before = getattr(self.state, "_progress", None) or Progress(steps, _size())
        begin, inexact = start_of(done, before, Progress(steps, _size()), self.model.steps_per_execution)
        of = f" of {steps}" if steps else ""
        self._tell(f"the epoch goes on after batch {begin}{of} on each rank{inexact}")
        self.state.batch = begin
        if begin:
            pass_over(self.model, begin)

    def _tell(self, text: str) -> None:
        if _rank() == 0:
            say(f"note: {text}", sys.stderr)


class UpdateEpochStateCallback(_Tracker):
    """Keeps `state.epoch`, the number of epochs that are done, over all attempts.

    Args:
        state: an elastic state.
    """

    def __init__(self, state):
        super().__init__(state)
        self._offset = 0
        self._first = True

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._first = True

    def on_epoch_begin(self, epoch, logs=None):
        if self._first:
            # `fit` counts from its own initial_epoch in every attempt.
            self._first = False
            self._offset = self.state.epoch - epoch

    def epoch_ended(self, epoch: int) -> None:
        self.state.epoch = self._offset + epoch + 1


def start_of(done: int, before: Progress, now: Progress, per_execution: int = 1) -> tuple[int, str]:
    """How many batches to pass over in an epoch that `done` batches of were done.

    Args:
        done: batches a rank.
        before: by what they were counted.
        now: the epoch that goes on.
        per_execution: Keras's `steps_per_execution`; an epoch can start at multiples of it.

    Returns:
        Batches a rank, and what to say where that is not exact; empty where it is.
    """
    inexact = ""
    exact, begin = float(done), done
    if before.steps and now.steps and before.steps != now.steps:
        exact, begin = done * now.steps / before.steps, done * now.steps // before.steps
    elif before.size != now.size and not (before.steps and now.steps):
        inexact = f"; {before.size} ranks did {done}, {now.size} ranks go on: some may be repeated or left out"
    if begin != now.steps:
        begin -= begin % per_execution
    if begin != exact:
        inexact = f"; {exact:.5g} are done, so the last {exact - begin:.2g} are done again"
    return begin, inexact


def pass_over(model, batches: int) -> None:
    """Start the coming epoch of a running `fit` after this many batches; call it in `on_epoch_begin`.

    Raises:
        UserError: `fit` is not Keras's own.
    """
    iterator = _epoch_iterator(model)
    if iterator is None:
        raise UserError(
            f"UpdateBatchStateCallback cannot start inside an epoch in this `fit` (Keras {keras.__version__}): leave "
            "it out, then the epoch that was cut short starts again with its first batch"
        ).agreed()

    def steps():
        del iterator._enumerate_iterator  # the next epochs begin as usual
        for begin, end, data in iterator._enumerate_iterator():
            if begin >= batches:
                yield begin, end, data
            elif not _skip(data, min(end + 1, batches) - begin):
                return

    iterator._enumerate_iterator = steps


def _skip(data, batches: int) -> bool:
    """Whether there were so many."""
    return all(next(data, None) is not None for _ in range(batches))


def _epoch_iterator(model):
    # No argument of a callback leads to the data of `fit`, and Keras has no other way to shorten an epoch.
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            found = frame.f_locals.get("epoch_iterator")
            return found if hasattr(found, "_enumerate_iterator") else None
        frame = frame.f_back
    return None


def _trackers(state) -> dict[str, _Tracker]:
    return state.__dict__.setdefault("_trackers", {})


def _rank() -> int:
    from horovod.tensorflow.mpi_ops import rank

    return rank()


def _size() -> int:
    from horovod.tensorflow.mpi_ops import size

    return size()
