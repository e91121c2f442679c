"""Decoders of chunks that consist of blocks: Blosc, Blosc2 and bitshuffle.

Each takes the filter's parameters, the stored bytes after ROOM free bytes, and the uint8 array to fill. It raises
Damaged or what imagecodecs raises.
"""

from functools import partial
from math import prod

import imagecodecs
import numpy as np

from hpc_train.data.hdf5.chunked.codec_buffers import ROOM, Damaged, big_endian, expect_size, scratch

# Blosc's sizes are signed 32-bit numbers.
BLOSC_LIMIT = 2**31 - 17


def decode_blosc(values, framed, out):
    """Decode a Blosc container."""
    source = framed[ROOM:]
    if len(source) < 16:
        raise Damaged("it is too short for its header")
    # The decoder does not know where its input ends: it trusts the header.
    size, _, stored = source[4:16].view("<i4").tolist()
    expect_size(size, len(out))
    if stored != len(source):
        raise Damaged(f"it holds {len(source)} bytes, but its header says {stored}")
    expect_size(len(imagecodecs.blosc_decode(source, numthreads=1, out=out)), len(out))


def decode_blosc2(values, framed, out):
    """Decode a contiguous frame of one chunk.

    Format: https://github.com/Blosc/c-blosc2/blob/main/README_CFRAME_FORMAT.rst
    """
    source = framed[ROOM:]
    if len(source) < 87 or source[2:9].tobytes() != b"b2frame" or big_endian(framed, 16, 8) != len(source):
        raise Damaged("it is not a complete Blosc2 frame")
    start, size, stored = big_endian(framed, 11, 4), big_endian(framed, 30, 8), big_endian(framed, 39, 8)
    if not 87 <= start <= start + stored < len(source):
        raise Damaged("its Blosc2 frame points outside of itself")
    grid = _blosc2_blocks(source[:start].tobytes(), len(out))
    expect_size(size, prod(grid[0]) * prod(grid[2]) if grid else len(out))
    decode = partial(imagecodecs.blosc2_decode, numthreads=1)
    offset = int(np.frombuffer(decode(source[start + stored :], out=8), "<i8")[0])
    if offset < 0:
        if offset >> 56 & 0x7F != 1:
            raise Damaged("its Blosc2 frame has no data")
        out[:] = 0
        return
    target = out if grid is None else scratch("blocks", size)[ROOM:]
    expect_size(len(decode(source[start + offset :], out=target)), len(target))
    if grid is not None:
        _join_blocks(target.reshape(-1, *grid[2]), out.reshape(grid[1]), grid[0])


def _blosc2_blocks(header, size):
    """(blocks along each axis, shape of the chunk, shape of a block), with the bytes of an element as the last axis.

    None where the chunk is one block. Blosc2 pads the blocks at the edge to their full shape.
    """
    place = header.find(b"\xa4b2nd\xd2")
    if place < 0:
        return None
    place = int.from_bytes(header[place + 6 : place + 10], "big") + 7
    axes = header[place]
    place += 3 + 9 * axes
    chunk, block = (
        [int.from_bytes(header[start + 5 * axis + 1 : start + 5 * axis + 5], "big") for axis in range(axes)]
        for start in (place, place + 5 * axes + 1)
    )
    if not all(0 < part <= extent for part, extent in zip(block, chunk, strict=True)) or size % prod(chunk):
        raise Damaged("its Blosc2 blocks do not fit the chunk")
    counts = [-(-extent // part) for part, extent in zip(block, chunk, strict=True)]
    itemsize = size // prod(chunk)
    return None if chunk == block else ((*counts, 1), (*chunk, itemsize), (*block, itemsize))


def _join_blocks(blocks, out, counts):
    for place, block in zip(np.ndindex(counts), blocks, strict=True):
        target = out[tuple(slice(at * part, (at + 1) * part) for at, part in zip(place, block.shape, strict=True))]
        np.copyto(target, block[tuple(slice(extent) for extent in target.shape)])


def decode_bitshuffle(values, framed, out):
    """Decode blocks whose bits are sorted, each compressed by itself: https://github.com/kiyo-masui/bitshuffle"""
    itemsize, block, codec = values[2], values[3], (values[4] if len(values) > 4 else 0)
    if codec == 0:
        expect_size(len(framed) - ROOM, len(out))
        _unshuffle_bits(framed[ROOM:], itemsize, block, out)
        return
    expect_size(big_endian(framed, 0, 8), len(out))
    block = big_endian(framed, 8, 4) // itemsize
    if block <= 0:
        raise Damaged("its blocks are empty")
    # The last elements, fewer than eight, are neither shuffled nor compressed.
    whole = len(out) // (8 * itemsize) * (8 * itemsize)
    lengths = [min(block * itemsize, whole - start) for start in range(0, whole, block * itemsize)]
    places, place = [], ROOM + 12
    for _ in lengths:
        places.append(place)
        place += 4 + big_endian(framed, place - ROOM, 4)
    expect_size(len(framed) - place + whole, len(out))
    np.copyto(out[whole:], framed[place:])
    sizes = np.diff([*places, place]) - 4
    # Blosc assumes that a block of full size is not compressed.
    if lengths and itemsize < 256 and whole < BLOSC_LIMIT and block % 8 == 0 and not (sizes == lengths).any():
        container = _bitshuffle_as_blosc(
            framed[:place], itemsize, block, whole, np.array(places), 1 if codec == 2 else 4
        )
        decoded = imagecodecs.blosc_decode(container, numthreads=1, out=out[:whole])
        expect_size(len(decoded), whole)
        return
    decode = imagecodecs.lz4_decode if codec == 2 else imagecodecs.zstd_decode
    shuffled, done = scratch("blocks", whole)[ROOM:], 0
    for place, size, length in zip(places, sizes, lengths, strict=True):
        piece = shuffled[done : done + length]
        expect_size(len(decode(framed[place + 4 : place + 4 + size], out=piece)), length)
        done += length
    _unshuffle_bits(shuffled, itemsize, block, out[:whole])


def _unshuffle_bits(shuffled, itemsize, block, out):
    if block % 8:
        raise Damaged(f"its blocks have {block} elements, not a multiple of 8")
    # From an array, imagecodecs would take the array's own item size.
    data = memoryview(shuffled)
    if len(data):
        expect_size(len(imagecodecs.bitshuffle_decode(data, itemsize=itemsize, blocksize=block, out=out)), len(out))


def _bitshuffle_as_blosc(framed, itemsize, block, size, places, codec):
    """The same blocks as a Blosc container: one call decodes them all, instead of one call and one lock a block.

    places: where in `framed` the big-endian length of each block is; Blosc stores it little endian.
    """
    start = 16 + 4 * len(places)
    container = scratch("blocks", start + len(framed))[ROOM:]
    container[:16] = blosc_header(itemsize, size, min(block * itemsize, size), len(container), codec, flags=0x14)
    container[16:start] = (places + start).astype("<i4").view(np.uint8)
    np.copyto(container[start:], framed)
    container[start + places[:, None] + np.arange(4)] = framed[places[:, None] + np.arange(3, -1, -1)]
    return container


def blosc_header(itemsize, size, block, stored, codec, flags):
    """A Blosc header, uint8 (16,): https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst"""
    header = np.empty(16, np.uint8)
    header[:4] = 2, 1, flags | codec << 5, itemsize
    header[4:].view("<i4")[:] = size, block, stored
    return header
