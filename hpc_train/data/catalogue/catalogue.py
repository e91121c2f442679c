"""The catalogue: which samples a split has, in which file each is, and where in the file its bytes are."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpc_train.data.catalogue.file_info import PREPARE, FileInfo
from hpc_train.data.catalogue.layout import (
    CAM5,
    CAM5_CHANNELS,
    PAPER,
    SHARDS,
    Layout,
    find_files,
    recognise,
    split_name,
)
from hpc_train.data.catalogue.shard_rules import broken_sequence, mixed_generations, shard_paths
from hpc_train.data.catalogue.survey import survey
from hpc_train.data.hdf5.access import reason
from hpc_train.data.shards.names import parse_shard_name
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import Alone, on_root

# Default side of the images that encoded shards are decoded to.
IMAGE_SIZE = 224


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The samples of one split, numbered from 0 in the order of its files.

    For encoded images, input_shape and input_dtype are those of the decoded images, (224, 224, 3) uint8 unless
    `resized` changes them, and `at` has two more columns, see `file_info.FileInfo`.

    Args:
        directory: what the catalogue was opened from.
        split: name of the split; None where the data are not divided.
        layout: where in a file the samples are.
        files: paths of the files.
        sizes: int64 (files,), bytes of each file.
        offsets: int64 (files + 1,), number of the first sample of each file, then the number of all samples.
        at: int64 (files, data sets of the layout), byte offset of each data set, NOT_CONTIGUOUS (-1) where it is
            chunked, compressed or otherwise not one run of bytes.
        input_shape: of one sample.
        input_dtype: as stored.
        target_shape: of one sample.
        target_dtype: as stored.
        packing: (scale, offset) of each input data set. Values are delivered as stored; for NetCDF's packed ones the
            real value is value * scale + offset.
        channels: "first" or "last" axis of an input sample.
        classes: labels are in [0, classes); 0 where this is not known.
        class_names: may be empty.
        fingerprint: hash of the data, empty where the writer gave none.
        encoding: "jpeg" where the inputs are JPEG files, else "".
        channel_names: names of the channels of an input sample, in their order; empty where neither the files nor
            their layout give them.
    """

    directory: str
    split: str | None
    layout: Layout
    files: Sequence[str]
    sizes: np.ndarray
    offsets: np.ndarray
    at: np.ndarray
    input_shape: tuple[int, ...]
    input_dtype: np.dtype
    target_shape: tuple[int, ...]
    target_dtype: np.dtype
    packing: tuple[tuple[float, float], ...]
    channels: str
    classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    encoding: str = ""
    channel_names: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        data: str | Path,
        split: str | None = "train",
        layout: Layout | None = None,
        classes: int | None = None,
        comm=None,
    ) -> "Catalogue":
        """Find the files of `split` in `data` and look into each; collective over `comm`.

        Args:
            data: a folder of shards; else as in `layout.find_files`.
            split: name of the split; None where the data are not divided.
            layout: by default recognised from the first file.
            classes: the number of classes that the labels must fit, if it is not that of the files (for example that
                of the training split).
            comm: the ranks that share the work, by default this process alone.

        Raises:
            UserError: the same on every rank, when the folder or a file is missing, damaged, of another format, or
                does not fit the others.
        """
        comm = comm or Alone()
        files, layout = on_root(comm, lambda: _find(data, split, layout))
        infos, sizes = survey(files, layout, split, comm)
        head = infos[0].common
        if classes is None:
            classes, class_names = head.classes, head.class_names
        else:
            class_names = head.class_names if classes == head.classes else ()
        try:
            _check_agreement(files, infos, layout)
            _check_labels(files, infos, classes)
        except UserError as error:
            raise error.agreed() from None
        return cls(
            directory=os.fspath(data),
            split=split,
            layout=layout,
            files=tuple(files),
            sizes=sizes,
            offsets=np.cumsum([0] + [info.samples for info in infos], dtype=np.int64),
            at=np.array([info.at for info in infos], dtype=np.int64),
            input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3) if head.encoding else head.input_shape,
            input_dtype=np.dtype(head.input_dtype),
            target_shape=head.target_shape,
            target_dtype=np.dtype(head.target_dtype),
            packing=head.packing,
            channels=head.channels,
            classes=classes,
            class_names=class_names,
            fingerprint=head.fingerprint,
            encoding=head.encoding,
            channel_names=head.channel_names or _channel_names(layout, head.input_shape),
        )

    def resized(self, size: int) -> "Catalogue":
        """The catalogue of the same images decoded to (size, size, 3); itself where samples are not encoded."""
        return replace(self, input_shape=(size, size, 3)) if self.encoding else self

    def stored_only(self, command: str) -> None:
        """Refuse encoded samples with a UserError that names the command; collective."""
        if self.encoding:
            raise UserError(
                f"{self.directory}: holds {self.encoding.upper()} images, which {command} cannot read; write them as "
                "arrays with `hpc-train prepare image-folder --size N`"
            ).agreed()

    @property
    def samples(self) -> int:
        """Number of samples of the split."""
        return int(self.offsets[-1])

    @property
    def rows(self) -> np.ndarray:
        """Number of samples of each file, int64 (files,)."""
        return np.diff(self.offsets)

    @property
    def channel_axis(self) -> int | None:
        """Axis of an input sample that counts its channels; None for a number, and for a row without channel names."""
        if len(self.layout.inputs) > 1:
            return 0
        if len(self.input_shape) < 2:
            return 0 if self.input_shape and self.channel_names else None
        return 0 if self.channels == "first" else len(self.input_shape) - 1

    @property
    def identity(self) -> str:
        """The same for two catalogues of the same data: the fingerprint, else a hash of file names and sizes."""
        if self.fingerprint:
            return self.fingerprint
        names = [os.path.relpath(path, os.path.dirname(self.files[0])) for path in self.files]
        return hashlib.blake2b(json.dumps([names, self.sizes.tolist()]).encode(), digest_size=16).hexdigest()

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample, inputs and targets, once they are read."""
        inputs = int(np.prod(self.input_shape)) * self.input_dtype.itemsize
        return inputs + int(np.prod(self.target_shape)) * self.target_dtype.itemsize * bool(self.layout.targets)

    def locate(self, indices) -> tuple[np.ndarray, np.ndarray]:
        """(file numbers, rows in the file), int64, of sample indices; IndexError for one outside the split."""
        indices = self.checked(indices)
        files = np.searchsorted(self.offsets, indices, side="right") - 1
        return files, indices - self.offsets[files]

    def checked(self, indices) -> np.ndarray:
        """Sample indices as int64; IndexError for one outside the split."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < self.samples):
            raise IndexError(f"a sample index is not in [0, {self.samples})")
        return indices


def _find(data, split: str | None, layout: Layout | None) -> tuple[list[str], Layout]:
    folder = Path(data)
    if folder.is_dir() or layout == SHARDS:
        shards = _list_shards(folder, split, needed=layout == SHARDS)
        if shards and layout not in (None, SHARDS):
            raise UserError(f"{folder}: holds shards, not layout {layout.name}; leave out --layout or --inputs")
        if shards:
            return shards, SHARDS
    files = find_files(data, split)
    return files, layout or recognise(files[0])


def _channel_names(layout: Layout, input_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the channels that follow from the layout: stacked data sets are named like their variables."""
    if len(layout.inputs) > 1:
        variables = tuple(split_name(name)[0].rsplit("/", 1)[-1] for name in layout.inputs)
        return variables if len(set(variables)) == len(variables) else layout.inputs
    axis = {CAM5.name: -1, PAPER.name: 0}.get(layout.name)
    known = axis is not None and len(input_shape) == 3 and input_shape[axis] == len(CAM5_CHANNELS)
    return CAM5_CHANNELS if known else ()


def _list_shards(directory: Path, split: str | None, needed: bool) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise UserError(
            f"{directory}: the folder of shards cannot be read ({reason(error)}); "
            "make it with `hpc-train prepare`, or give the right folder"
        ) from error
    present = [parsed for parsed in map(parse_shard_name, names) if parsed]
    if not present and not needed:
        return []
    splits = sorted({found for found, _, _ in present})
    if split is None and len(splits) == 1:
        (split,) = splits
    generations: dict[int, set[int]] = {}
    for found, shard, shards in present:
        if found == split:
            generations.setdefault(shards, set()).add(shard)
    if split is None or not generations:
        if split is None and splits:
            raise UserError(f"{directory}: has shards of {', '.join(splits)}; name one of these splits")
        there = f"only of {', '.join(splits)}" if splits else "nor of any other split"
        raise UserError(f"{directory}: has no shards of split {split!r}, {there}; {PREPARE} or name another split")
    if mixed := mixed_generations(directory, split, generations):
        raise UserError(f"{mixed}; {PREPARE}")
    ((shards, numbers),) = generations.items()
    paths = shard_paths(directory, split, shards)
    missing = [path for shard, path in enumerate(paths) if shard not in numbers]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}{more}: missing; {split!r} has {shards} shards; {PREPARE}")
    return paths


def _check_agreement(files: list[str], infos: list[FileInfo], layout: Layout) -> None:
    head = infos[0].common
    remedy = PREPARE if layout == SHARDS else "leave it out, or convert the files to one form with `hpc-train shard`"
    for path, info in zip(files, infos, strict=True):
        if info.common == head:
            continue
        for name in ("input_shape", "input_dtype", "target_shape", "target_dtype", "packing", "channels"):
            mine, theirs = getattr(info.common, name), getattr(head, name)
            if mine != theirs:
                if name.endswith("dtype"):
                    mine, theirs = np.dtype(mine), np.dtype(theirs)
                raise UserError(f"{path}: {name.replace('_', ' ')} is {mine}, but {theirs} in {files[0]}; {remedy}")
        name = next(name for name in head._fields if getattr(info.common, name) != getattr(head, name))
        what = name.replace("_", " ")
        raise UserError(f"{path}: belongs to another generation than {files[0]} ({what} differs); {remedy}")
    if layout == SHARDS and (problem := broken_sequence(files, infos)):
        raise UserError(f"{problem}; {'give the folder of the shards, or ' * (len(files) == 1)}{PREPARE}")


def _check_labels(files: list[str], infos: list[FileInfo], classes: int) -> None:
    for path, info in zip(files, infos, strict=True):
        if classes and (info.target_min < 0 or info.target_max >= classes):
            raise UserError(
                f"{path}: labels run from {info.target_min} to {info.target_max}, outside the {classes} "
                f"classes (0 to {classes - 1}); fix the labels or the number of classes and {PREPARE}"
            )
