"""Batches in host memory as tensors, without `tf.data`: its threads pass a batch on in the time of a small step."""

from collections.abc import Callable, Generator, Iterator

import numpy as np
import tensorflow as tf

from hpc_train.data.reading.loader import Arrays, Loader

# Eigen reads in steps of this many bytes, and TensorFlow does not look where an array begins.
_ALIGNED = 64


def batches(loader: Loader, deliver: Callable | None) -> Generator:
    """One batch of the loader after the other, on the host, in the loader's memory where that is aligned.

    Args:
        loader: it is closed at the end, or, once it has begun, when this iterator is closed.
        deliver: makes of the tensors of a batch what `fit` gets; None where that is the tuple of them.
    """
    try:
        for group in iter(loader.next, None):
            yield from _steps(group, deliver)
            del group
    finally:
        loader.close()


def _steps(group: Arrays, deliver: Callable | None) -> Iterator:
    for arrays in zip(*group, strict=True):
        tensors = tuple(map(_tensor, arrays))
        yield deliver(*tensors) if deliver else tensors


def _tensor(array: np.ndarray) -> tf.Tensor:
    """The same values as a tensor, which keeps the array alive."""
    if array.__array_interface__["data"][0] % _ALIGNED:
        memory = np.empty(array.nbytes + _ALIGNED, np.uint8)
        first = -memory.__array_interface__["data"][0] % _ALIGNED
        copy = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        array = copy
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
