"""Write a split whose samples come one after the other, and whose number of samples is known only at the end."""

from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import open_hdf5, reason
from hpc_train.data.shards.names import check_split, publish, shard_edges, shard_name, temporary_name
from hpc_train.data.shards.writer import set_attributes, sync
from hpc_train.errors import UserError


class StreamedSplit:
    """A context that writes a split as shards, under temporary names until `publish`, and removes what is unpublished.

    Args:
        expected: most samples that will come.
        shards: number of files if all of them come; else the last ones are shorter or left out.
        open_shard: called with (path, attributes), returns a context with `write(inputs, targets)`.
        attributes: those that all shards share and that are known beforehand.

    Raises:
        UserError: for a number of shards that cannot be filled, and for a folder that cannot be written.
    """

    def __init__(self, directory, split, expected, shards, open_shard, attributes):
        check_split(f"{split} data", split, expected, shards)
        self.directory, self.split, self.samples = Path(directory), split, 0
        self._edges, self._open_shard, self._attributes = shard_edges(expected, shards), open_shard, attributes
        self._writer, self._written, self._digest = None, [], blake2b(digest_size=16)
        self._made = not self.directory.exists()

    def __enter__(self):
        return self

    def write(self, inputs, targets):
        """Append samples.

        Args:
            inputs: sequence of b byte strings or arrays.
            targets: (b, ...) whole numbers.
        """
        targets = np.ascontiguousarray(targets)
        for data, target in zip(inputs, targets, strict=True):
            view = memoryview(data)
            # str() would shorten arrays.
            self._digest.update(
                f"{view.nbytes} ".encode() + (target.tobytes() if target.ndim else f"{target} ".encode())
            )
            self._digest.update(view)
        start = 0
        while start < len(inputs):
            with self._writable():
                if self._writer is None:
                    self._begin_shard()
                stop = min(len(inputs), start + self._edges[len(self._written)] - self.samples)
                self._writer.write(inputs[start:stop], targets[start:stop])
                self.samples += stop - start
                start = stop
                if self.samples == self._edges[len(self._written)]:
                    self._end_shard()

    def finish(self):
        """Complete the shards and record their number in them; after this, only the renaming can fail."""
        with self._writable():
            if self._writer is not None:
                self._end_shard()
            shards = len(self._written)
            last = {"shards": shards, "total": self.samples, "fingerprint": self._digest.hexdigest()}
            for shard, path in enumerate(self._written):
                with open_hdf5(path, "r+", libver=("v108", "v110")) as file:
                    set_attributes(file, last)
                sync(path)
                named = temporary_name(self.directory / shard_name(self.split, shard, shards))
                self._written[shard] = path.rename(named)

    def publish(self):
        """Give the finished shards their names, remove other files of the split, and return the shards' paths."""
        shards = len(self._written)
        paths = [self.directory / shard_name(self.split, shard, shards) for shard in range(shards)]
        with self._writable():
            publish(paths)
        return paths

    def __exit__(self, kind, error, traceback):
        if self._writer is not None:
            # Even without an error: a shard that is not published need not be completed.
            self._writer.__exit__(kind or GeneratorExit, error, traceback)
        for path in self._written:
            with suppress(OSError):
                path.unlink()
        if self._made:
            # A folder that is not empty stays.
            with suppress(OSError):
                self.directory.rmdir()

    def _begin_shard(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        shard, shards = len(self._written), len(self._edges) - 1
        path = temporary_name(self.directory / shard_name(self.split, shard, shards))
        own = {"split": self.split, "shard": shard, "first": self.samples}
        self._writer = self._open_shard(path, self._attributes | own)
        self._written.append(path)

    def _end_shard(self):
        writer, self._writer = self._writer, None
        writer.__exit__(None, None, None)

    @contextmanager
    def _writable(self):
        try:
            yield
        # h5py raises RuntimeError where HDF5 cannot flush a file.
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{self.directory}: cannot be written ({reason(error)}); free space or choose another output folder"
            ) from error
