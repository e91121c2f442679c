"""The callbacks of --track on rank 0, for the time of a training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras

from hpc_train.tracking.follow import Follower, followed
from hpc_train.tracking.mlperf import Log


class Look(keras.callbacks.Callback):
    """Tells followers after each epoch that metrics.jsonl has a new line."""

    def __init__(self, followers: list[Follower]):
        super().__init__()
        self._followers = followers

    def on_epoch_end(self, epoch, logs=None):
        for follower in self._followers:
            follower.look()


@contextmanager
def tracked(track: Sequence[str], run, log: Log | None) -> Iterator[list]:
    """Callbacks that tell trackers of a training, and how it ended.

    Args:
        track: the words of --track.
        run: a `training.run_folder.Run` that has begun.
        log: MLPerf's, or None.

    Raises:
        UserError: the folder cannot be written.
    """
    with followed(track, run, log) as followers:
        yield [*([Look(followers)] if followers else []), *([log] if log else [])]
