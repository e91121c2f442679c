"""Reuse the memory of batches: new memory costs a page fault every 4 KiB, as much time as the copy itself."""

import mmap
import weakref
from collections import deque
from math import prod

import numpy as np


class Buffers:
    """Arrays for batches, whose memory comes back when the last view of an array is gone.

    Memory is page aligned, so that TensorFlow can use an array without a copy.

    Args:
        keep: most unused pieces of each size that are kept for the next batches.
    """

    def __init__(self, keep: int):
        self._keep = keep
        self._free: dict[int, deque[mmap.mmap]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of this shape and dtype with arbitrary content."""
        size = prod(shape) * dtype.itemsize
        if size < mmap.PAGESIZE:
            return np.empty(shape, dtype)
        free = self._free.setdefault(size, deque(maxlen=self._keep))
        try:
            memory = free.pop()
        except IndexError:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
        flat = np.frombuffer(memory, np.uint8)
        # Every view keeps `flat` alive, since the owner of its memory is not an array.
        weakref.finalize(flat, free.append, memory).atexit = False
        return flat.view(dtype).reshape(shape)
