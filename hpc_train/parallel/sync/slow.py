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

    `found`, `cost` and `text` tell of the last epoch: the slow ranks, the slowest first; the share of its time that the
    job loses to them; and both in words, or "". On GPUs a rank counts as late when it is late to start its gradients: a
    GPU that computes more slowly than others is not seen.

    Args:
        printed: print a line where there are slow ranks.
    """

    def __init__(self, printed: bool = True):
        super().__init__()
        self.printed = printed
        self.found: list[slow.Slow] = []
        self.cost, self.text = 0.0, ""

    @property
    def places(self) -> list[str]:
        """Host and GPU of every rank."""
        hosts = [member.host for member in HANG.members]
        gpus = bool(tf.config.get_visible_devices("GPU"))
        return [f"{host}, GPU {hosts[:rank].count(host)}" if gpus else host for rank, host in enumerate(hosts)]

    def on_epoch_end(self, epoch, logs=None):
        size = hvd.size()
        if size == 1 or wire.elastic():
            return
        rows = np.zeros((size, 4))
        rows[hvd.rank()] = slow.row(RECORD.pace)
        # Epochs may have too few steps to judge by.
        while len(RECORD.pace) > 4 * slow.FEWEST:
            RECORD.pace.popleft()
        self.found, self.cost = slow.slow_ranks(sum_arrays([rows], "hpc_train.pace")[0])
        self.text = slow.told(self.found, self.cost, self.places)
        if self.text and self.printed and hvd.rank() == 0:
            say(f"epoch {epoch + 1}: {self.text}")
