"""All ranks of a `fit` make the same steps: they begin alike, and a rank that wants to stop stops all of them."""

import sys
from types import FrameType

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.agreement.watch import WATCH
from hpc_train.parallel.collectives import gather_different
from hpc_train.parallel.sync.broadcast import Broadcast, start_alike, started_alike
from hpc_train.parallel.unbuilt import waits
from hpc_train.watch.record import CALLBACKS, RECORD
from hpc_train.watch.verdict import ranks


class StopTogether(keras.callbacks.Callback):
    """Make all ranks begin with the same epoch, and end with the same step, whichever rank's callback asks for the end.

    A callback asks by `model.stop_training = True`, as in plain Keras. At the end of an epoch one rank's wish stops all
    ranks. At the end of a step all ranks stop after this step if all of them wish to, or else at most one later.

    The place in the list of callbacks does not matter: the callbacks of `first` are called before all others. What this
    one does follows all others, as Keras looks at `stop_training` when all callbacks have been called.

    Args:
        first: the callbacks that must see an epoch before any other does.

    Raises:
        UserError: on every rank, when ranks have different numbers of epochs or batches.
    """

    def __init__(self, first=()):
        super().__init__()
        self.first = list(first)

    def set_model(self, model):
        super().set_model(model)
        stop_together(self.first, model)


def stop_together(first: list, model) -> None:
    """Let the ranks agree on where they begin and stop, before or after all callbacks of a list are called.

    Call it in the `set_model` of a callback of that list.

    Args:
        first: the callbacks that come before all others; with a `Broadcast`, whose root and local variables hold.
        model: the model.
    """
    # Keras hands its list of callbacks to nobody, but calls set_model from there.
    frame: FrameType | None = sys._getframe()
    while frame and not isinstance(callers := frame.f_locals.get("self"), keras.callbacks.CallbackList):
        frame = frame.f_back
    if hvd.size() > 1 and frame and "on_train_begin" not in vars(callers):
        _around(callers, first, model)


def _around(callers: keras.callbacks.CallbackList, first: list, model) -> None:
    """Let the ranks agree before or after all callbacks of `callers` are called."""
    train_begin, train_end = callers.on_train_begin, callers.on_train_end
    epoch_begin, epoch_end = callers.on_epoch_begin, callers.on_epoch_end
    batch_end, test_begin = callers.on_train_batch_end, callers.on_test_begin

    def on_train_begin(logs=None):
        callers.callbacks.sort(key=lambda callback: not any(callback is other for other in first))
        train_begin(logs)
        model._initial_epoch = _agree_on_plan(callers.params or {}, model._initial_epoch)
        begin = next((callback for callback in callers.callbacks if isinstance(callback, Broadcast)), None)
        if begin is not None and not waits(model) and not started_alike(model, begin.local):
            # A callback has loaded weights on that rank, as those that restore a training do.
            start_alike(model, begin.root, begin.local)
        RECORD.marks_callbacks = True
        WATCH.begin()

    def on_epoch_begin(epoch, logs=None):
        _check_epoch(epoch)
        epoch_begin(epoch, logs)
        WATCH.begin_epoch()

    def on_train_batch_end(batch, logs=None):
        RECORD.enter(CALLBACKS)
        batch_end(batch, logs)
        steps = (callers.params or {}).get("steps")
        wishes = bool(model.stop_training)
        stops = WATCH.end_step(batch + 1, wishes, last=bool(steps and batch + 1 >= steps))
        if stops != wishes:
            model.stop_training = stops

    def on_test_begin(logs=None):
        WATCH.leave_epoch()
        test_begin(logs)

    def on_epoch_end(epoch, logs=None):
        WATCH.leave_epoch()
        epoch_end(epoch, logs)
        wishes = bool(model.stop_training) or WATCH.decided is not None
        model.stop_training = _smallest([-int(wishes)], "hpc_train.stop")[0] < 0

    def on_train_end(logs=None):
        train_end(logs)
        WATCH.end()

    for method in (on_train_begin, on_epoch_begin, on_train_batch_end, on_test_begin, on_epoch_end, on_train_end):
        setattr(callers, method.__name__, method)


def _check_epoch(epoch: int) -> None:
    first, last = _smallest([epoch, -epoch], "hpc_train.epoch")
    if first != -last:
        raise UserError(
            f"ranks begin different epochs, {first + 1} and {1 - last}: give initial_epoch, and callbacks that restore "
            "a training, to every rank alike"
        ).agreed()


def _smallest(numbers: list[int], name: str) -> list[int]:
    with tf.device("/cpu:0"):
        found = hvd.allreduce(tf.constant(np.array(numbers, "int64")), op=hvd.Min, name=name).numpy()
    return [int(number) for number in found]


def _agree_on_plan(params: dict, restored: int | None) -> int | None:
    """Check that all ranks have the same number of epochs and, where it is known, of batches. Collective.

    Args:
        params: Keras's, of this `fit`.
        restored: the epoch that a callback on this rank has set to begin with.

    Returns:
        The epoch that one on rank 0 has set.

    Raises:
        UserError: on every rank, when numbers differ, or another rank than 0 has restored a training.
    """
    everybody = gather_different((params.get("epochs"), params.get("steps"), restored), "hpc_train.plan")
    if not everybody:
        return restored
    epochs, steps, first = zip(*everybody, strict=True)
    for what, numbers in (("epochs", epochs), ("batches an epoch", steps)):
        known = [number for number in numbers if isinstance(number, int) and number > 0]
        if len(set(known)) > 1:
            few, many = ([r for r, n in enumerate(numbers) if n == extreme(known)] for extreme in (min, max))
            raise UserError(
                f"{ranks(few)} would make {min(known)} {what}, and {ranks(many)} {max(known)}: every rank must make "
                "the same number of steps; cut the shares to the same length, or repeat() the data and give "
                "steps_per_epoch"
            ).agreed()
    if ahead := [rank for rank, epoch in enumerate(first) if (epoch or 0) > (first[0] or 0)]:
        raise UserError(
            f"{ranks(ahead)} restored a training, rank 0 did not: all ranks begin as rank 0 does, so give the callback "
            "that restores it (BackupAndRestore) to rank 0"
        ).agreed()
    return first[0]
