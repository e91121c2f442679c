"""A pseudo-random permutation of range(n), evaluated only at the indices asked for.

A generalised Feistel cipher with cycle walking: J. Black and P. Rogaway, "Ciphers with Arbitrary Finite
Domains", CT-RSA 2002, section 5. The domain is a grid of a x b >= n cells with a and b near sqrt(n); rounds
add a keyed hash of one coordinate to the other, which is a bijection of the grid whatever the hash; an image
outside range(n) is encrypted again until it falls inside.
"""

from math import isqrt

import numpy as np

MAX_N = 2**62
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(indices, n, seed, epoch):
    """Images of `indices` under the permutation of range(n) that (seed, epoch) selects.

    indices: integers in [0, n), any shape; 1 <= n <= 2**62; seed and epoch are taken modulo 2**64.
    Returns int64 of the same shape. Depends on nothing but its arguments: not on the machine, nor on NumPy's
    generators. Raises ValueError when n or an index is out of range.
    """
    if not 1 <= n <= MAX_N:
        raise ValueError(f"n must lie in [1, 2**62], not {n}")
    indices = np.asarray(indices)
    if indices.size and not (indices.min() >= 0 and indices.max() < n):
        raise ValueError(f"indices must lie in [0, {n})")
    # A round mixes little on a small domain: there it takes more to reach every permutation evenly.
    keys = _round_keys(seed, epoch, rounds=16 if n < 4096 else 8)
    rows = isqrt(n - 1) + 1
    columns = -(-n // rows)
    images = _encrypt(indices.astype(np.uint64).ravel(), rows, columns, keys)
    outside = np.flatnonzero(images >= n)
    while outside.size:
        images[outside] = _encrypt(images[outside], rows, columns, keys)
        outside = outside[images[outside] >= n]
    return images.astype(np.int64).reshape(indices.shape)


def _encrypt(x, rows, columns, keys):
    rows, columns = np.uint64(rows), np.uint64(columns)
    row, column = np.divmod(x, columns)
    for key_row, key_column in zip(keys[::2], keys[1::2], strict=True):
        # Half of the hash's range, so that the sum cannot wrap around.
        row = (row + (_mix(column + key_row) >> 1)) % rows
        column = (column + (_mix(row + key_column) >> 1)) % columns
    return row * columns + column


def _round_keys(seed, epoch, rounds):
    state = _mix(np.array([int(seed) % 2**64], np.uint64) + _GOLDEN)
    state = _mix(state + np.array([int(epoch) % 2**64], np.uint64))
    return _mix(state + _GOLDEN * np.arange(1, rounds + 1, dtype=np.uint64))


def _mix(x):
    """The finaliser of SplitMix64: each bit of a uint64 changes about half of the bits of the result."""
    x = x ^ (x >> 30)
    x *= 0xBF58476D1CE4E5B9
    x ^= x >> 27
    x *= 0x94D049BB133111EB
    x ^= x >> 31
    return x
