"""Shards whose number of samples is known only at the end."""

import tempfile
from math import prod
from pathlib import Path

import numpy as np

from hpc_train.data.shards.writer import ShardWriter
from hpc_train.units import MIB

PIECE = 16 * MIB


class SpooledShard:
    """A context that writes one shard of any number of samples, which never lie in memory together.

    path: file to be made; target_dtype: u or i, stored little endian; attributes: those of the format that are known
    beforehand. Subclasses say what is stored of a sample, and make the file of it.

    Leaving the context without an error writes the file; after an error there is none, or an unfinished one. Raises
    OSError and RuntimeError of h5py, ValueError for a shard without samples.
    """

    def __init__(self, path, target_dtype, attributes):
        self.path, self.attributes = Path(path), attributes
        self.target_dtype = np.dtype(target_dtype).newbyteorder("<")
        # The size of a contiguous data set is fixed when it is made, so inputs wait in a file without a name.
        self._spool = tempfile.TemporaryFile(dir=self.path.parent, buffering=MIB)  # noqa: SIM115 (closed by __exit__)
        self._targets = []

    def __enter__(self):
        return self

    def write(self, inputs, targets):
        """Append samples: inputs, a sequence of b; targets (b,) whole numbers."""
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
        """The bytes that are kept of a sample."""
        raise NotImplementedError

    def _finish(self, spool, targets):
        """Make the file of all bytes kept, which the file `spool` gives, and targets (n,)."""
        raise NotImplementedError


class SpooledWriter(SpooledShard):
    """As `ShardWriter`, but for any number of samples; inputs: arrays of one shape and type."""

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
        kinds = self._shape, self._dtype, (), self.target_dtype
        with ShardWriter(self.path, len(targets), *kinds, self.attributes, self._storage) as writer:
            for start in range(0, len(targets), together):
                some = targets[start : start + together]
                inputs = np.frombuffer(spool.read(len(some) * sample), self._dtype)
                writer.write(inputs.reshape(len(some), *self._shape), some)
