"""How the arrays of a shard are compressed, and in which chunks."""

from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from hpc_train.units import MIB

Compression = Literal["none", "gzip", "lzf", "zstd", "lz4", "bitshuffle", "blosc", "blosc2"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)


@dataclass(frozen=True)
class Storage:
    """How the arrays of a shard are stored.

    Args:
        compression: "none": in one run of bytes, page aligned; else in compressed chunks.
        chunk_bytes: approximate size of a chunk before compression, and of the rows that share a checksum.
    """

    compression: Compression = "none"
    chunk_bytes: int = MIB

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"compression is {self.compression!r}, not one of {', '.join(COMPRESSIONS)}")

    def run(self, sample_bytes: int) -> int:
        """Rows that share a checksum and a chunk."""
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


def _filter(compression: str) -> dict:
    # gzip, lzf, lz4 and zstd compress better after the shuffle filter; blosc and bitshuffle shuffle by themselves.
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
