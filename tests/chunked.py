"""Chunked data sets with every filter, for the tests of reading them."""

import random
from concurrent.futures import ThreadPoolExecutor

import hdf5plugin
import numpy as np
from hypothesis import strategies as st

FILTERS = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "shuffle": {"shuffle": True},
    "shuffle+gzip": {"compression": "gzip", "shuffle": True},
    "shuffle+gzip+fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "fletcher32": {"fletcher32": True},
    "lzf": {"compression": "lzf"},
    "shuffle+lzf+fletcher32": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "zstd": dict(hdf5plugin.Zstd()),
    "shuffle+zstd": {**hdf5plugin.Zstd(), "shuffle": True},
    "zstd+fletcher32": {**hdf5plugin.Zstd(), "fletcher32": True},
    "lz4": dict(hdf5plugin.LZ4()),
    "shuffle+lz4 in blocks": {**hdf5plugin.LZ4(nbytes=64), "shuffle": True},
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")),
    "bitshuffle lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bitshuffle lz4 in blocks": dict(hdf5plugin.Bitshuffle(nelems=16, cname="lz4")),
    "bitshuffle zstd in blocks": dict(hdf5plugin.Bitshuffle(nelems=8, cname="zstd")),
    "blosc": dict(hdf5plugin.Blosc()),
    "blosc zstd": dict(hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE)),
    "blosc zlib": dict(hdf5plugin.Blosc(cname="zlib", shuffle=hdf5plugin.Blosc.NOSHUFFLE)),
    "blosc2": dict(hdf5plugin.Blosc2()),
    "blosc2 zstd": dict(hdf5plugin.Blosc2(cname="zstd", filters=hdf5plugin.Blosc2.BITSHUFFLE)),
    "blosc2 delta": dict(hdf5plugin.Blosc2(cname="lz4", filters=hdf5plugin.Blosc2.DELTA)),
    "bzip2": dict(hdf5plugin.BZip2()),
}
DTYPES = [f"{order}{kind}" for kind in ("u1", "i2", "u4", "i8", "f2", "f4", "f8") for order in "<>"]


def values(shape, dtype, seed, smooth):
    """Numbers that compress, or any bits at all: NaNs with payloads among them."""
    generator = np.random.default_rng(seed)
    if smooth:
        return generator.integers(0, 4, shape).astype(dtype)
    count = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    return np.frombuffer(generator.bytes(count), dtype).reshape(shape)


def read(array, rows, places, samples):
    """What the jobs of `array` leave in an output of this many samples, run in any order in three threads."""
    out = np.full((samples, *array.sample_shape), 77, array.dtype)
    jobs = array.jobs(np.array(rows, int), np.array(places, int), out)
    random.Random(len(jobs)).shuffle(jobs)
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    return out


@st.composite
def datasets(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    growing = draw(st.booleans())
    chunks = tuple(draw(st.integers(1, 12 if growing else extent)) for extent in shape)
    return {
        "shape": shape,
        "chunks": chunks,
        "maxshape": (None,) * len(shape) if growing else None,
        "dtype": draw(st.sampled_from(DTYPES)),
    }
