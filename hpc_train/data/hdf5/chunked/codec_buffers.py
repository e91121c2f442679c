"""Buffers, errors and helpers that the decoders of HDF5's filters share."""

import threading

import numpy as np

# Free bytes before the data in every buffer, where unshuffle puts a Blosc header.
ROOM = 24
_local = threading.local()


class Damaged(ValueError):
    """Stored bytes that do not decode as they should; the text says why."""


def scratch(slot: str, size: int) -> np.ndarray:
    """This thread's buffer `slot`, uint8 (ROOM + size,); the next call with the same slot reuses it."""
    buffer = getattr(_local, slot, None)
    if buffer is None or len(buffer) < ROOM + size:
        setattr(_local, slot, None)
        buffer = np.empty(ROOM + size, np.uint8)
        setattr(_local, slot, buffer)
    return buffer[: ROOM + size]


def expect_size(size: int, expected: int) -> None:
    """Raise Damaged for a chunk of the wrong size."""
    if size != expected:
        raise Damaged(f"it decodes to {size} bytes, not {expected}")


def big_endian(framed: np.ndarray, place: int, size: int) -> int:
    """The unsigned number at this place of the stored bytes."""
    data = framed[ROOM + place : ROOM + place + size]
    if len(data) != size:
        raise Damaged("it ends early")
    return int.from_bytes(data.tobytes(), "big")
