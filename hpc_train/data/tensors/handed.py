"""Batches in host memory as tensors, without `tf.data`: its threads pass a batch on in the time of a small step."""

from collections.abc import Callable, Generator, Iterator

import tensorflow as tf

from hpc_train.data.reading.loader import Arrays, Loader


def batches(loader: Loader, deliver: Callable | None) -> Generator:
    """One batch of the loader after the other, on the host, copied.

    Not the loader's own memory: what TensorFlow frees in a thread of its own would wait for the interpreter there, and
    ranks were seen to stand still.

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
        tensors = tuple(map(tf.constant, arrays))
        yield deliver(*tensors) if deliver else tensors
