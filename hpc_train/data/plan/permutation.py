"""A pseudo-random permutation of range(n) and its inverse, computed only for the requested indices.

A generalised Feistel cipher with cycle walking: J. Black and P. Rogaway, "Ciphers with Arbitrary Finite
Domains", CT-RSA 2002, section 5. The domain is a grid of a x b >= n cells with a and b near sqrt(n). Each round
adds a keyed hash of one coordinate to the other, which is a bijection of the grid for any hash. An image
outside range(n) is encrypted again until it falls inside.
"""

from math import isqrt

import numpy as np

MAX_N = 2**62
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Another odd constant, so that no derived seed equals a round key.
_BRANCH = np.uint64(0xD1B54A32D192ED03)
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ONE, _27, _30, _31 = (np.uint64(bits) for bits in (1, 27, 30, 31))


def permute(indices, n, seed, epoch):
    """Images of `indices` under the permutation of range(n) that (seed, epoch) selects.

    The result depends only on the arguments, not on the machine or on NumPy's generators.

    Args:
        indices: integers in [0, n), any shape.
        n: size of the range, 1 <= n <= 2**62.
        seed: taken modulo 2**64; or one seed for each index, uint64 of the shape of indices.
        epoch: taken modulo 2**64.

    Returns:
        int64 of the shape of indices.

    Raises:
        ValueError: when n or an index is out of range.
    """
    return _walk(_encrypt, indices, n, seed, epoch)


def inverse(images, n, seed, epoch):
    """The indices whose images under `permute` these are; arguments, result and errors as of `permute`."""
    return _walk(_decrypt, images, n, seed, epoch)


def derive(seed, number):
    """Independent seeds, uint64 of the shape of `number` (integers): a different one for each number."""
    number = np.asarray(number)
    return _mix(_mix(_words(seed) + _BRANCH) + _words(number)).reshape(number.shape)


def _walk(cipher, indices, n, seed, epoch):
    if not 1 <= n <= MAX_N:
        raise ValueError(f"n must lie in [1, 2**62], not {n}")
    indices = np.asarray(indices)
    if indices.size and not (indices.min() >= 0 and indices.max() < n):
        raise ValueError(f"indices must lie in [0, {n})")
    # A round mixes little on a small domain, which needs more rounds to reach all permutations equally often.
    keys = _round_keys(seed, epoch, rounds=16 if n < 4096 else 8)
    rows = isqrt(n - 1) + 1
    grid = np.uint64(rows), np.uint64(-(-n // rows))
    images = cipher(indices.astype(np.uint64).ravel(), *grid, keys)
    outside = np.flatnonzero(images >= np.uint64(n))
    while outside.size:
        again = cipher(images[outside], *grid, keys if keys.shape[1] == 1 else keys[:, outside])
        images[outside] = again
        outside = outside[again >= np.uint64(n)]
    return images.astype(np.int64).reshape(indices.shape)


def _encrypt(x, rows, columns, keys):
    row, column = np.divmod(x, columns)
    for key_row, key_column in zip(keys[::2], keys[1::2], strict=True):
        row += _hash(column, key_row)
        row %= rows
        column += _hash(row, key_column)
        column %= columns
    return row * columns + column


def _decrypt(x, rows, columns, keys):
    row, column = np.divmod(x, columns)
    for key_row, key_column in zip(keys[-2::-2], keys[::-2], strict=True):
        column += columns - _hash(row, key_column) % columns
        column %= columns
        row += rows - _hash(column, key_row) % rows
        row %= rows
    return row * columns + column


def _hash(x, key):
    # Half of the hash's range, so that a coordinate added to it cannot wrap around.
    return _mix(x + key) >> _ONE


def _round_keys(seed, epoch, rounds):
    """Keys, uint64 (rounds, 1), or (rounds, seeds) where seeds differ."""
    # A batch has few distinct seeds, each repeated many times.
    seeds, which = np.unique(_words(seed), return_inverse=True)
    state = _mix(_mix(seeds + _GOLDEN) + _words(epoch))
    keys = _mix(state + _GOLDEN * np.arange(1, rounds + 1, dtype=np.uint64)[:, np.newaxis])
    return keys if seeds.size == 1 else keys[:, which]


def _words(numbers):
    if isinstance(numbers, np.ndarray):
        return numbers.astype(np.uint64).ravel()
    return np.array([int(numbers) % 2**64], np.uint64)


def _mix(x):
    """The finaliser of SplitMix64: each bit of a uint64 changes about half of the bits of the result."""
    x = x ^ (x >> _30)
    x *= _MULTIPLIERS[0]
    x ^= x >> _27
    x *= _MULTIPLIERS[1]
    x ^= x >> _31
    return x
