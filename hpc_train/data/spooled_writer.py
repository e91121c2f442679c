"""A shard of arrays whose number is known only at the end."""

import tempfile
from math import prod
from pathlib import Path

import numpy as np

from hpc_train.data.filters import MIB
from hpc_train.data.shard_writer import ShardWriter

_PIECE = 16 * MIB


class SpooledWriter:
    """As `ShardWriter`, but for any number of samples: their inputs wait in a file without a name, beside the shard.

    targets: whole numbers, (b,) a piece. Leaving the context without an error writes the file; after an error there is
    none, or an unfinished one.
    """

    def __init__(self, path, input_shape, input_dtype, target_dtype, attributes, storage):
        self.path, self.attributes, self.storage = Path(path), attributes, storage
        self._shape, self._dtype, self._target_dtype = tuple(input_shape), np.dtype(input_dtype), target_dtype
        # The size of a contiguous data set is fixed when it is made.
        self._spool = tempfile.TemporaryFile(dir=self.path.parent, buffering=MIB)  # noqa: SIM115 (closed by __exit__)
        self._targets = []

    def __enter__(self):
        return self

    def write(self, inputs, targets):
        """Append samples: inputs, a sequence of b arrays of the input's shape; targets (b,)."""
        for sample in inputs:
            if sample.shape != self._shape:
                raise ValueError(f"a sample of shape {sample.shape}, not {self._shape}")
            self._spool.write(np.ascontiguousarray(sample, self._dtype))
        self._targets.append(np.array(targets, self._target_dtype))

    def __exit__(self, kind, error, traceback):
        with self._spool:
            if kind is None:
                self._finish()

    def _finish(self):
        targets = np.concatenate(self._targets)
        sample = prod(self._shape) * self._dtype.itemsize
        together = max(1, _PIECE // sample)
        kinds = self._shape, self._dtype, (), self._target_dtype
        self._spool.seek(0)
        with ShardWriter(self.path, len(targets), *kinds, self.attributes, self.storage) as writer:
            for start in range(0, len(targets), together):
                some = targets[start : start + together]
                inputs = np.frombuffer(self._spool.read(len(some) * sample), self._dtype)
                writer.write(inputs.reshape(len(some), *self._shape), some)
