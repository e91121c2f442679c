"""`hvd.SyncBatchNormalization`."""

import itertools

import keras

from hpc_train.parallel.batch_norm import synchronise

_numbers = itertools.count()


def SyncBatchNormalization(fused=False, **kwargs) -> keras.layers.BatchNormalization:
    """A batch normalisation over the batches of all ranks.

    Args:
        fused: False; a fused one cannot be synchronised.
        **kwargs: of `keras.layers.BatchNormalization`.

    Returns:
        A layer of Keras's own class, so that the model is saved without Horovod.

    Raises:
        ValueError: fused.
    """
    if fused is not False:
        raise ValueError("SyncBatchNormalization cannot be fused: leave out fused=")
    number = next(_numbers)
    name = f"sync_batch_normalization_{number}" if number else "sync_batch_normalization"
    layer = keras.layers.BatchNormalization(**{"name": name, **kwargs})
    synchronise(layer)
    return layer
