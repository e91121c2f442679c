"""A callback that finds the ranks that the others wait for."""

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hpc_train.console import say
from hpc_train.parallel import wire
from hpc_train.parallel.collectives import sum_arrays
from hpc_train.watch import slow
from hpc_train.watch.hang import HANG
from hpc_train.watch.record import RECORD


class SlowRanks(keras.callbacks.Callback):
    """Find the ranks whose steps are late again and again, once an epoch, by how long each rank waits for the others.

    They are late in both halves of an epoch of 64 steps or more, or in this one and the one before. `found` and
    `text` tell of the last epoch: the slow ranks, the slowest first; and what they cost in words, or "". On GPUs a
    rank counts as late when it is late to start its gradients: a GPU that computes more slowly than others is not
    seen. It takes `parallel.init`.

    Args:
        printed: print a line where there are slow ranks.
    """

    def __init__(self, printed: bool = True):
        super().__init__()
        self.printed = printed
        self.found: list[slow.Slow] = []
        self.text = ""
        self._before: list[tuple[float, float, float]] = []

    @property
    def places(self) -> list[str]:
        """Host and GPU of every rank."""
        hosts = [member.host for member in HANG.members]
        gpus = bool(tf.config.get_visible_devices("GPU"))
        return [f"{host}, GPU {hosts[:rank].count(host)}" if gpus else host for rank, host in enumerate(hosts)]

    def on_epoch_end(self, epoch, logs=None):
        size = hvd.size()
        if size == 1 or wire.elastic() or len(HANG.members) != size:
            return
        pace, half = list(RECORD.pace), len(RECORD.pace) // 2
        RECORD.pace.clear()
        earlier, later = (pace[:half], pace[half:]) if len(pace) >= slow.LONG else (self._before, pace)
        self._before = pace
        rows = np.zeros((2, size, 4))
        rows[:, hvd.rank()] = slow.row(earlier), slow.row(later)
        before, now = map(slow.slow_ranks, sum_arrays([rows], "hpc_train.pace")[0])
        again = {one.rank for one in before}
        self.found = [one for one in now if one.rank in again]
        self.text = slow.told(self.found, self.places)
        if self.text and self.printed and hvd.rank() == 0:
            say(f"epoch {epoch + 1}: {self.text}")
