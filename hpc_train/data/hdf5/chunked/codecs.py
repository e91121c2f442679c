"""Undo HDF5's filter pipeline outside the HDF5 library, without the interpreter lock.

Filters and their parameters: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
"""

import bz2
from functools import partial

import imagecodecs
import numpy as np

from hpc_train.data.hdf5.chunked.block_codecs import (
    BLOSC_LIMIT,
    blosc_header,
    decode_bitshuffle,
    decode_blosc,
    decode_blosc2,
)
from hpc_train.data.hdf5.chunked.codec_buffers import ROOM, Damaged, big_endian, expect_size, scratch

_DEFLATE, _SHUFFLE, _FLETCHER32, _BLOSC, _BITSHUFFLE, _BLOSC2 = 1, 2, 3, 32001, 32008, 32026
_BLOSC_CODECS = (0, 1, 2, 4, 5)


def unsupported(filters) -> int | None:
    """Place of the first filter that Pipeline cannot undo, or None.

    Args:
        filters: (number, parameters), in the order of writing.
    """
    compressed = False
    for place, (number, values) in enumerate(filters):
        # The size between two compressors is not stored.
        again = compressed and number not in (_SHUFFLE, _FLETCHER32)
        if number not in (_FLETCHER32, *_DECODERS) or again or not _parameters_known(number, values):
            return place
        compressed |= number not in (_SHUFFLE, _FLETCHER32)
    return None


def _parameters_known(number, values):
    # As HDF5 itself demands.
    if number == _SHUFFLE:
        return len(values) == 1 and values[0] > 0
    if number == _DEFLATE:
        return len(values) == 1 and values[0] <= 9
    if number == _BITSHUFFLE:
        return len(values) > 3 and values[2] > 0 and (values[4] if len(values) > 4 else 0) in (0, 2, 3)
    if number in (_BLOSC, _BLOSC2):
        return len(values) < 7 or values[6] in _BLOSC_CODECS
    return True


class Pipeline:
    """Undoes the filters of the chunks of one data set.

    Args:
        filters: (number, parameters) in the order of writing, for which `unsupported` is None.
        size: bytes of a decoded chunk.
    """

    def __init__(self, filters, size: int):
        self.size = size
        self._filters = [(number, tuple(values)) for number, values in filters]
        self._steps: dict[int, list] = {}

    def decode(self, stored: np.ndarray, mask: int, out: np.ndarray | None = None) -> np.ndarray:
        """Decode a chunk.

        Args:
            stored: uint8 (ROOM + stored bytes,); may be overwritten.
            mask: bit i is set where filter i was skipped.
            out: uint8 (size,), or None.

        Returns:
            The decoded chunk, uint8 (size,): `out` where given, else a buffer that the thread's next decode overwrites.

        Raises:
            Damaged: when the bytes do not decode to a chunk.
        """
        if mask not in self._steps:
            self._steps[mask] = self._plan(mask)
        steps, framed, slot = self._steps[mask], stored, "even"
        for number, (decode, size) in enumerate(steps):
            if decode is None:
                framed = _checked(framed)
                continue
            if len(framed) == ROOM:
                raise Damaged("it is empty")
            last = all(later is None for later, _ in steps[number + 1 :])
            direct = out is not None and last and size == self.size
            target = None if direct else scratch(slot, len(framed) - ROOM if size is None else size)
            try:
                decode(framed, out if direct else target[ROOM:])
            except Damaged:
                raise
            except (RuntimeError, ValueError, IndexError) as error:
                raise Damaged(f"it does not decode ({error})") from error
            if direct:
                return out
            framed, slot = target, "odd" if slot == "even" else "even"
        decoded = framed[ROOM:]
        expect_size(len(decoded), self.size)
        if out is None:
            return decoded
        np.copyto(out, decoded)
        return out

    def _plan(self, mask):
        """[(decoder, bytes that it returns)], last filter first; None as the decoder means a checksum."""
        steps = []
        size = self.size
        for place, (number, values) in enumerate(self._filters):
            if mask >> place & 1:
                continue
            if number == _FLETCHER32:
                steps.append((None, size))
                size = size and size + 4
            else:
                steps.append((partial(_DECODERS[number], values), size))
                size = size if number == _SHUFFLE else None
        return steps[::-1]


def _checked(framed):
    if len(framed) <= ROOM + 4:
        raise Damaged("it is too short for its checksum")
    stored = int.from_bytes(framed[-4:].tobytes(), "little")
    checksum = imagecodecs.h5checksum_fletcher32(framed[ROOM:-4])
    # HDF5 before 1.6.3 swapped the bytes of each half.
    swapped = (checksum & 0x00FF00FF) << 8 | checksum >> 8 & 0x00FF00FF
    if stored not in (checksum, swapped):
        raise Damaged("its fletcher32 checksum does not match")
    return framed[:-4]


def _unshuffle(values, framed, out):
    """Undo HDF5's shuffle: byte j of element i is at j * n + i."""
    (itemsize,), size = values, len(framed) - ROOM
    expect_size(size, len(out))
    if 1 < itemsize < 256 and size % itemsize == 0 and size <= BLOSC_LIMIT:
        # As a Blosc container of one stored block: 4 MiB of float32 take 1.2 ms with Blosc's vector instructions,
        # 2.1 ms as NumPy copies by column, 4.5 ms with imagecodecs.byteshuffle and 10.8 ms as a transposed copy.
        container = framed
        container[:16] = blosc_header(itemsize, size, size, len(framed), codec=1, flags=0x11)
        container[16:ROOM].view("<i4")[:] = 20, size
        expect_size(len(imagecodecs.blosc_decode(container, numthreads=1, out=out)), len(out))
        return
    count = size // itemsize
    # As HDF5: a chunk of one element, or of a part of one, is not shuffled.
    if count < 2:
        np.copyto(out, framed[ROOM:])
        return
    planes = framed[ROOM : ROOM + count * itemsize].reshape(itemsize, count)
    elements = out[: count * itemsize].reshape(count, itemsize)
    for byte in range(itemsize):
        np.copyto(elements[:, byte], planes[byte])
    np.copyto(out[count * itemsize :], framed[ROOM + count * itemsize :])


def _whole(decode, values, framed, out):
    expect_size(len(decode(framed[ROOM:], out=out)), len(out))


def _lz4(values, framed, out):
    expect_size(big_endian(framed, 0, 8), len(out))
    _whole(imagecodecs.lz4h5_decode, values, framed, out)


def _bzip2(values, framed, out):
    try:
        decoder = bz2.BZ2Decompressor()
        data = decoder.decompress(framed[ROOM:], len(out))
        # The checksum comes after the last byte.
        rest = b"" if decoder.eof else decoder.decompress(b"", 1)
    except (OSError, EOFError) as error:
        raise Damaged(f"it does not decode ({error})") from error
    expect_size(len(data) + len(rest), len(out))
    if not decoder.eof:
        raise Damaged("it ends early")
    np.copyto(out, np.frombuffer(data, np.uint8))


_DECODERS = {
    _DEFLATE: partial(_whole, imagecodecs.deflate_decode),
    _SHUFFLE: _unshuffle,
    307: _bzip2,
    32000: partial(_whole, imagecodecs.lzf_decode),
    _BLOSC: decode_blosc,
    32004: _lz4,
    _BITSHUFFLE: decode_bitshuffle,
    32015: partial(_whole, imagecodecs.zstd_decode),
    _BLOSC2: decode_blosc2,
}
