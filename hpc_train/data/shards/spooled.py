"""Write a shard whose number of samples is known only at the end."""

import tempfile
from math import prod
from pathlib import Path

import numpy as np

from hpc_train.data.shards.writer import ShardWriter
from hpc_train.units import MIB

PIECE = 16 * MIB


class SpooledShard:
    """A context that writes one shard of any number of samples, which are never in memory together.

    Leaving the context without an error writes the file; after an error there is none, or an unfinished one.
    Subclasses define what is stored of a sample, and write the file.

    Args:
        path: file to write.
        target_dtype: u or i; stored little endian.
        attributes: those of the format that are known beforehand.

    Raises:
        OSError: from h5py, as RuntimeError, where the file cannot be written.
        ValueError: for a shard without samples.
    """

    def __init__(self, path, target_dtype, attributes):
        self.path, self.attributes = Path(path), attributes
        self.target_dtype = np.dtype(target_dtype).newbyteorder("<")
        # The size of a contiguous data set is fixed when it is created, so inputs wait in an unnamed file.
        self._spool = tempfile.TemporaryFile(dir=self.path.parent, buffering=MIB)  # noqa: SIM115 (closed by __exit__)
        self._targets = []

    def __enter__(self):
        return self

    def write(self, inputs, targets):
        """Append b samples; targets: (b,) whole numbers."""
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets")
        for sample in inputs:
            self._spool.write(self._stored(sample))
        self._targets.append(np.array(targets, self.target_dtype))

    def __exit__(self, kind, error, traceback):
        with self._spool:
            if kind is None:
                if not self._targets:
                    raise ValueError(f"{self.path}: no samples were written")
                self._spool.seek(0)
                self._finish(self._spool, np.concatenate(self._targets))

    def _stored(self, sample):
        """The bytes of a sample to store."""
        raise NotImplementedError

    def _finish(self, spool, targets):
        """Write the file from the stored bytes, which the file `spool` holds, and targets (n,)."""
        raise NotImplementedError


class SpooledWriter(SpooledShard):
    """A `ShardWriter` for any number of samples; inputs: arrays of one shape and type."""

    def __init__(self, path, input_shape, input_dtype, target_dtype, attributes, storage):
        super().__init__(path, target_dtype, attributes)
        self._shape, self._dtype, self._storage = tuple(input_shape), np.dtype(input_dtype), storage

    def _stored(self, sample):
        if sample.shape != self._shape:
            raise ValueError(f"a sample of shape {sample.shape}, not {self._shape}")
        return np.ascontiguousarray(sample, self._dtype)

    def _finish(self, spool, targets):
        sample = prod(self._shape) * self._dtype.itemsize
        together = max(1, PIECE // sample)
        kinds = {"inputs": (self._shape, self._dtype), "targets": ((), self.target_dtype)}
        with ShardWriter(self.path, len(targets), kinds, self.attributes, self._storage) as writer:
            for start in range(0, len(targets), together):
                some = targets[start : start + together]
                inputs = np.frombuffer(spool.read(len(some) * sample), self._dtype)
                writer.write(inputs.reshape(len(some), *self._shape), some)
