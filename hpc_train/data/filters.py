"""HDF5 filters: which compressions shards may have, and what the filters of a data set are called."""

from dataclasses import dataclass
from math import prod

import h5py

from hpc_train.units import MIB

COMPRESSIONS = ("none", "gzip", "lzf", "zstd", "lz4", "bitshuffle", "blosc", "blosc2")
NOT_COMPRESSING = frozenset({"shuffle", "fletcher32"})
# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_NAMES = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32024: "sz3",
    32026: "blosc2",
}


@dataclass(frozen=True)
class Storage:
    """How the arrays of a shard are stored.

    compression: one of COMPRESSIONS; "none": in one run of bytes, page aligned; else in compressed chunks.
    chunk_bytes: uncompressed size that a chunk, and the rows of one checksum, come close to.
    """

    compression: str = "none"
    chunk_bytes: int = MIB

    def run(self, sample_bytes: int) -> int:
        """Rows that have one checksum, and that share a chunk."""
        return max(1, self.chunk_bytes // max(1, sample_bytes))

    def chunk_shape(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        """Chunks for an array of `shape`: many small samples, or a large sample cut along its leading axes."""
        sample = prod(shape[1:]) * itemsize
        if sample <= self.chunk_bytes:
            return min(shape[0], self.run(sample)), *shape[1:]
        chunk = [1, *shape[1:]]
        for axis in range(1, len(shape)):
            slab = prod(shape[axis + 1 :]) * itemsize
            if slab <= self.chunk_bytes:
                pieces = -(-shape[axis] // (self.chunk_bytes // slab))
                chunk[axis] = -(-shape[axis] // pieces)
                break
            chunk[axis] = 1
        return tuple(chunk)

    def creation(self, shape: tuple[int, ...], itemsize: int) -> dict:
        """Arguments of h5py's create_dataset for an array of `shape`."""
        if self.compression == "none":
            return {}
        return {"chunks": self.chunk_shape(shape, itemsize), "fletcher32": True} | _filter(self.compression)


def filter_names(dataset: h5py.Dataset) -> list[str]:
    """Names of the filters of a data set, in the order in which writing applies them."""
    plist = dataset.id.get_create_plist()
    numbers = (plist.get_filter(place)[0] for place in range(plist.get_nfilters()))
    return [_NAMES.get(number, f"filter {number}") for number in numbers]


def load_plugins() -> None:
    """Let HDF5 know the filters of hdf5plugin."""
    import hdf5plugin  # noqa: F401


def _filter(compression: str) -> dict:
    # gzip, lzf, lz4 and zstd gain by bytes sorted by significance; blosc and bitshuffle sort by themselves.
    if compression in ("gzip", "lzf"):
        return {"compression": compression, "shuffle": True}
    import hdf5plugin

    return {
        "zstd": lambda: {**hdf5plugin.Zstd(clevel=3), "shuffle": True},
        "lz4": lambda: {**hdf5plugin.LZ4(), "shuffle": True},
        "bitshuffle": lambda: dict(hdf5plugin.Bitshuffle(cname="lz4")),
        "blosc": lambda: dict(hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE)),
        "blosc2": lambda: dict(hdf5plugin.Blosc2(cname="lz4", filters=hdf5plugin.Blosc2.SHUFFLE)),
    }[compression]()
