"""`hvd.SyncBatchNormalization`."""

import keras

from hpc_train.parallel.batch_norm import synchronise


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
    layer = keras.layers.BatchNormalization(**{"name": "sync_batch_normalization", **kwargs})
    synchronise(layer, layer.name)
    return layer
