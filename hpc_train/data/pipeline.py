"""From plan and reader to `tf.data`: batches of this rank, read ahead in threads."""

import numpy as np
import tensorflow as tf

from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reader import Reader


class Input:
    """This rank's batches, as `fit` and `evaluate` take them, and what went wrong while reading them.

    TensorFlow turns an exception in a reading thread into an error of its own; `error` keeps the real one.
    """

    def __init__(self, reader: Reader):
        self.reader = reader
        self.error: Exception | None = None

    def training(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> tf.data.Dataset:
        """Batches of `steps` steps from `position` samples into `epoch`, going on into the epochs after it."""
        first = plan.steps(position)

        def indices(step: int) -> np.ndarray:
            if step < first:
                return plan.indices(epoch, step, rank, position)
            later, within = divmod(step - first, plan.steps())
            return plan.indices(epoch + 1 + later, within, rank)

        return self._dataset(steps, indices, plan.batch_size)

    def validation(self, plan: ValidationPlan, rank: int) -> tf.data.Dataset:
        """One pass over this rank's share; batches may be short."""
        return self._dataset(plan.steps, lambda step: plan.indices(step, rank), None)

    def _dataset(self, steps: int, indices, batch: int | None) -> tf.data.Dataset:
        catalogue = self.reader.catalogue

        def read(step):
            try:
                return self.reader.read(indices(int(step)))
            except Exception as error:
                self.error = error
                raise

        def load(step):
            inputs, targets = tf.numpy_function(read, [step], (catalogue.input_dtype, catalogue.target_dtype))
            inputs.set_shape((batch, *catalogue.input_shape))
            targets.set_shape((batch,))
            return inputs, targets

        options = tf.data.Options()
        options.autotune.enabled = False
        options.threading.private_threadpool_size = 2
        return tf.data.Dataset.range(steps).map(load, num_parallel_calls=2).prefetch(4).with_options(options)
