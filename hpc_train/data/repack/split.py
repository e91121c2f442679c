"""The shards of one split that `hpc-train shard` makes: how many, which are complete, and how one is written."""

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from hpc_train.data.fields.geometry import grid_of
from hpc_train.data.fields.grid import Grid
from hpc_train.data.hdf5.access import open_hdf5, reason
from hpc_train.data.hdf5.contents import UNREADABLE
from hpc_train.data.repack.conversion import Conversion
from hpc_train.data.shards.compression import Storage
from hpc_train.data.shards.format import PAIR
from hpc_train.data.shards.names import (
    check_space,
    default_shards,
    publish,
    remove_stale,
    shard_edges,
    shard_name,
    temporary_name,
)
from hpc_train.data.shards.writer import ShardWriter
from hpc_train.errors import UserError
from hpc_train.units import MIB

_PIECE_BYTES = 32 * MIB
_WHOLE = ".whole"


class SplitShards:
    """The shards of a catalogue's split in a folder.

    A shard is written under one temporary name, renamed to another when it is complete, and gets its own name when all
    are complete. Each shard stores its recipe, a hash of its source and of the options, by which a later run recognises
    it.

    Args:
        catalogue: the samples to write.
        source: `source_hash` of the catalogue.
        provenance: one line on where the data came from.
        output: the folder.
        conversion: reads and converts the samples.
        storage: how the shards are stored.
        shards: a function from the bytes of a sample to the number of shards; by default `default_shards`.

    Raises:
        UserError: there are fewer samples than shards.
    """

    def __init__(self, catalogue, source, provenance, output, conversion: Conversion, storage: Storage, shards=None):
        self.catalogue, self.output, self.conversion, self.storage = catalogue, output, conversion, storage
        self.sample_bytes = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in conversion.kinds.values())
        self.shards = shards(self.sample_bytes) if shards else default_shards(catalogue.samples, self.sample_bytes)
        if self.shards > catalogue.samples:
            raise UserError(
                f"{catalogue.split}: {catalogue.samples} samples do not fill {self.shards} shards; "
                f"make at most {catalogue.samples}"
            )
        self.edges = shard_edges(catalogue.samples, self.shards)
        self.paths = [output / shard_name(catalogue.split, shard, self.shards) for shard in range(self.shards)]
        self.provenance = provenance
        content = f"{catalogue.identity} {conversion.input_dtype.str} {conversion.seed}"
        # Shards with the same samples in the same order have the fingerprint of their source, however they are stored.
        same = catalogue.fingerprint and not conversion.changes
        self.fingerprint = catalogue.fingerprint if same else _hash(content)
        labels = f"{catalogue.classes} {catalogue.class_names} {catalogue.channel_names}"
        if list(conversion.kinds) != PAIR:
            labels += f" {list(conversion.kinds)}"
        if conversion.converts:
            labels += f" {[dtype.str for _, dtype in conversion.kinds.values()]}"
        if catalogue.labels:
            labels += f" {catalogue.labels}"
        for given in (catalogue.geometry, catalogue.ignore_label):
            if given not in ("", None):
                labels += f" {given}"
        grid = map_grid(catalogue)
        degrees = grid and not (grid.assumed or grid.numbered)
        self._coordinates = {"latitude": grid.latitudes, "longitude": grid.longitudes} if degrees else {}
        self._geometry = grid.geometry if grid else catalogue.geometry
        self.recipe = _hash(f"{content} {source} {labels} {self.shards} {storage}")
        self._written = [0, 0]

    def samples(self, shard: int) -> int:
        """Number of samples in a shard."""
        return self.edges[shard + 1] - self.edges[shard]

    def begin(self) -> set[int]:
        """Make the folder, remove unfinished files of other runs, and return the numbers of the complete shards."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            whole = {shard for shard, path in enumerate(self.paths) if self._is_whole(path, shard)}
            waiting = {
                shard for shard, path in enumerate(self.paths) if self._is_whole(temporary_name(path, _WHOLE), shard)
            }
            # Published shards of another generation stay until this one is complete.
            keep = {name for name in os.listdir(self.output) if not name.startswith(".")}
            keep |= {temporary_name(self.paths[shard], _WHOLE).name for shard in waiting}
            remove_stale(self.output, self.catalogue.split, keep)
        except OSError as error:
            raise self._cannot_write(self.output, error) from error
        return whole | waiting

    def check_space(self, samples: int) -> None:
        """UserError unless the disk has space for this many more samples, compressed like those written so far."""
        before, after = self._written
        # The compression is unknown until some samples are written.
        share = 1.0 if self.storage.compression == "none" else after / before if before else 0.0
        check_space(self.output, share * samples * self.sample_bytes)

    def write(self, shard: int, progress) -> None:
        """Write one shard, and give it the temporary name of a complete shard when it is on the disk."""
        path = self.paths[shard]
        temporary = temporary_name(path)
        rows = max(1, _PIECE_BYTES // max(self.sample_bytes, self.catalogue.sample_bytes))
        try:
            rest = self._attributes(shard), self.storage, self._coordinates
            with ShardWriter(temporary, self.samples(shard), self.conversion.kinds, *rest) as writer:
                for arrays in self.conversion.pieces(*self.edges[shard : shard + 2], rows):
                    writer.write(*arrays)
                    progress.add(len(arrays[0]), len(arrays[0]) * self.sample_bytes)
            self._written[0] += self.samples(shard) * self.sample_bytes
            self._written[1] += temporary.stat().st_size
            os.replace(temporary, temporary_name(path, _WHOLE))
        # h5py raises RuntimeError if HDF5 cannot flush a file.
        except (OSError, RuntimeError) as error:
            raise self._cannot_write(path, error) from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    def publish(self) -> int:
        """Give all shards, which must be complete, their own names, and return the bytes of their files."""
        try:
            publish(self.paths, _WHOLE)
            return sum(path.stat().st_size for path in self.paths)
        except OSError as error:
            raise self._cannot_write(self.output, error) from error

    def _is_whole(self, path: Path, shard: int) -> bool:
        try:
            with open_hdf5(path) as file:
                lengths = {len(file[name]) for name in self.conversion.kinds}
                found = file.attrs["recipe"], file.attrs["shard"], lengths
        # h5py raises many kinds of errors for damaged metadata.
        except UNREADABLE:
            return False
        return found == (self.recipe.encode(), shard, {self.samples(shard)})

    def _attributes(self, shard: int) -> dict:
        catalogue = self.catalogue
        return {
            "split": catalogue.split,
            "shard": shard,
            "shards": self.shards,
            "first": self.edges[shard],
            "total": catalogue.samples,
            "classes": catalogue.classes,
            "class_names": list(catalogue.class_names),
            "channels": "first" if catalogue.channel_axis_of(catalogue.inputs[0]) == 0 else "last",
            **({"channel_names": list(catalogue.channel_names)} if catalogue.channel_names else {}),
            **({"geometry": self._geometry} if self._geometry else {}),
            **({} if catalogue.ignore_label is None else {"ignore_label": catalogue.ignore_label}),
            "source": self.provenance,
            "fingerprint": self.fingerprint,
            "recipe": self.recipe,
        }

    def _cannot_write(self, path: Path, error: Exception) -> UserError:
        return UserError(
            f"{path}: cannot be written ({reason(error)}); free space or choose another output folder, then give the "
            "same command again to continue"
        )


def map_grid(catalogue) -> Grid | None:
    """Where the source's maps are; None where its targets are no maps."""
    maps = len(catalogue.targets) == 1 and len(catalogue.target_shape) == 2
    return grid_of(catalogue) if maps else None


def source_hash(catalogue) -> str:
    """A text that changes when the source changes: its own fingerprint, or else a hash of its files' times."""
    if catalogue.fingerprint:
        return catalogue.fingerprint
    return _hash(str([os.stat(path).st_mtime_ns for path in catalogue.files]))


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
