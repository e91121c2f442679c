"""From plan and reader to `tf.data`: batches of this rank, read ahead, on the device where there is one."""

import os
from collections.abc import Iterator
from itertools import groupby

import numpy as np
import tensorflow as tf

from hpc_train.data.loader import Loader
from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reader import Reader

# Steps that together are so large are read at once; a step that is larger goes alone.
_GROUP_BYTES = 2 * 2**20
_MOST_STEPS = 32
# What read-ahead may take of a rank's memory where nobody says, and its least and most groups.
_AHEAD_BYTES = 512 * 2**20
_GROUPS = 2, 8


class Input:
    """This rank's batches, as `fit` and `evaluate` take them, and what went wrong while reading them.

    reader: gives the samples; threads: that read and decode, by default as many as the process may use of its cores,
    and at least 4; read_ahead: batches that are in memory or on their way, by default what 512 MiB hold, within
    bounds; device: where the batches should lie, e.g. "/gpu:0"; None leaves them in host memory.

    TensorFlow turns an exception in a reading thread into an error of its own; `error` keeps the real one.
    """

    def __init__(self, reader: Reader, threads: int | None = None, read_ahead: int | None = None, device=None):
        self.reader, self.read_ahead, self.device = reader, read_ahead, device
        self.threads = threads or max(4, min(16, len(os.sched_getaffinity(0))))
        self.error: Exception | None = None

    def training(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> tf.data.Dataset:
        """Batches of `steps` steps from `position` samples into `epoch`, going on into the epochs after it."""
        together = self._steps_together(plan.batch_size)

        def groups() -> Iterator[np.ndarray]:
            now, place, left = epoch, position, steps
            while left:
                here = min(plan.steps(place), left)
                for step in range(0, here, together):
                    yield plan.batches(now, step, min(together, here - step), rank, place)
                now, place, left = now + 1, 0, left - here

        block = plan.order.block if plan.order.block > 1 else None
        window = plan.order.window if block else 0
        horizon = -(-window // (plan.batch_size * together))
        return self._dataset(groups, steps, plan.batch_size, together, block, horizon)

    def validation(self, plan: ValidationPlan, rank: int) -> tf.data.Dataset:
        """One pass over this rank's share; batches may be short."""
        together = self._steps_together(plan.batch_size)

        def groups() -> Iterator[np.ndarray]:
            batches = (plan.indices(step, rank) for step in range(plan.steps))
            for _, alike in groupby(enumerate(batches), lambda item: (item[0] // together, len(item[1]))):
                yield np.stack([batch for _, batch in alike])

        return self._dataset(groups, plan.steps, None, together)

    def memory(self, batch_size: int) -> int:
        """Bytes that read-ahead takes at most with batches of so many samples, blocks and scratch memory aside."""
        together = self._steps_together(batch_size)
        # One more is being used, and one may still be TensorFlow's.
        return (self._groups_ahead(batch_size) + 2) * together * batch_size * self.reader.catalogue.sample_bytes

    def _steps_together(self, batch_size: int) -> int:
        return max(1, min(_MOST_STEPS, _GROUP_BYTES // (batch_size * self.reader.catalogue.sample_bytes)))

    def _groups_ahead(self, batch_size: int) -> int:
        together = self._steps_together(batch_size)
        if self.read_ahead:
            return -(-self.read_ahead // together)
        least, most = _GROUPS
        fit = _AHEAD_BYTES // (together * batch_size * self.reader.catalogue.sample_bytes)
        return max(least, min(most, fit))

    def _dataset(self, groups, steps: int, batch: int | None, together: int, block=None, horizon=0) -> tf.data.Dataset:
        catalogue = self.reader.catalogue
        ahead = self._groups_ahead(batch or 1) if batch else _GROUPS[0]

        def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            loader = Loader(self.reader, groups(), self.threads, ahead, block, horizon)
            try:
                yield from loader if together == 1 else iter(loader.next, None)
            except Exception as error:
                self.error = error
                raise
            finally:
                loader.close()

        lead = () if together == 1 else (None,)
        signature = tuple(
            tf.TensorSpec((*lead, batch, *shape), dtype.newbyteorder("="))
            for shape, dtype in (
                (catalogue.input_shape, catalogue.input_dtype),
                (catalogue.target_shape, catalogue.target_dtype),
            )
        )
        data = tf.data.Dataset.from_generator(read, output_signature=signature)
        if together > 1:
            data = data.unbatch()
        options = tf.data.Options()
        options.autotune.enabled = False
        options.threading.private_threadpool_size = 2
        data = data.apply(tf.data.experimental.assert_cardinality(steps)).with_options(options)
        if self.device:
            return data.apply(tf.data.experimental.prefetch_to_device(self.device, 2))
        return data.prefetch(2)
