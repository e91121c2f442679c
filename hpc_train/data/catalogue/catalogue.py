"""The catalogue: which samples a split has, in which file each is, and where in the file its bytes are."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpc_train.data.catalogue.agreement import check_agreement, check_labels, check_packed_labels
from hpc_train.data.catalogue.file_info import PREPARE
from hpc_train.data.catalogue.layout import (
    CAM5,
    CAM5_CHANNELS,
    PAPER,
    SHARDS,
    Layout,
    data_folder,
    find_files,
    recognise,
)
from hpc_train.data.catalogue.part import Kind, Part, labelled
from hpc_train.data.catalogue.shard_inspection import shard_layout
from hpc_train.data.catalogue.shard_rules import mixed_generations, shard_paths
from hpc_train.data.catalogue.survey import survey
from hpc_train.data.hdf5.access import reason
from hpc_train.data.hdf5.contents import split_name
from hpc_train.data.shards.names import parse_shard_name
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import Alone, on_root

# Default side of the images that encoded shards are decoded to.
IMAGE_SIZE = 224
_NO_TARGET = Part("target", "", (), (), np.dtype(np.uint8))


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
        parts: the arrays of a sample: inputs, targets, weights.
        channels: "first" or "last" axis of an input sample.
        classes: labels are in [0, classes); 0 where this is not known.
        class_names: may be empty.
        fingerprint: hash of the data, empty where the writer gave none.
        encoding: "jpeg" where the inputs are JPEG files, else "".
        channel_names: names of the channels of an input sample, in their order; empty where neither the files nor
            their layout give them.
        labels: stored labels of the classes, which are read as their numbers 0, 1, 2, ...; empty where they are these.
        forms: kinds of the parts, of files that differ in types, packing or missing values; empty where all are alike.
        form_of: int64 (files,), place in `forms` of each file's kinds; empty where all are alike.
        ignore_label: label whose pixels do not count, as shards record it, or None.
        geometry: "globe", "region" or "picture" as shards record it, "" where they do not.
        sources: paths of other files that hold bytes of the samples.
    """

    directory: str
    split: str | None
    layout: Layout
    files: Sequence[str]
    sizes: np.ndarray
    offsets: np.ndarray
    at: np.ndarray
    parts: tuple[Part, ...]
    channels: str
    classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    encoding: str = ""
    channel_names: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    forms: tuple[tuple[Kind, ...], ...] = ()
    form_of: tuple[int, ...] = ()
    geometry: str = ""
    ignore_label: int | None = None
    sources: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        data: str | Path,
        split: str | None = "train",
        layout: Layout | None = None,
        classes: int | None = None,
        comm=None,
        labels: tuple[int, ...] = (),
        mixed: bool = False,
        follow_external: bool = False,
    ) -> "Catalogue":
        """Find the files of `split` in `data` and look into each; collective over `comm`.

        Args:
            data: a folder of shards; else as in `layout.find_files`.
            split: name of the split; None where the data are not divided.
            layout: by default recognised from the first file.
            classes: the number of classes that the labels must fit, if it is not that of the files (for example that
                of the training split).
            comm: the ranks that share the work, by default this process alone.
            labels: stored labels of the classes, if they are not 0, 1, 2, ....
            mixed: allow files that differ in types, packing or missing values; the parts are then those of the first.
            follow_external: read what links, virtual data sets and external storage take from files outside `data`.

        Raises:
            UserError: the same on every rank, when the folder or a file is missing, damaged, of another format, or
                does not fit the others.
        """
        comm = comm or Alone()
        files, layout = on_root(comm, lambda: _find(data, split, layout))
        infos, sizes = survey(files, layout, split, comm, None if follow_external else data_folder(data))
        head = infos[0].common
        parts = tuple(map(Part.of, layout.places, head.kinds))
        if head.encoding:
            parts = (parts[0]._replace(shape=(IMAGE_SIZE, IMAGE_SIZE, 3)), *parts[1:])
        parts = _padded(parts, [max(longest) for longest in zip(*(info.longest for info in infos), strict=True)])
        if layout.channels == "none":
            parts = tuple(part.with_channel() if part.role == "input" else part for part in parts)
        if classes is None:
            classes, class_names = head.classes, head.class_names
        else:
            class_names = head.class_names if classes == head.classes else ()
        forms = dict.fromkeys(info.common.kinds for info in infos)
        numbers = {form: number for number, form in enumerate(forms)}
        try:
            check_agreement(files, infos, layout, mixed)
            check_labels(files, infos, classes, labels)
            for form in forms:
                check_packed_labels(files[0], tuple(map(Part.of, layout.places, form)), layout, classes)
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
            parts=parts,
            channels=head.channels,
            classes=classes,
            class_names=class_names,
            fingerprint=head.fingerprint,
            encoding=head.encoding,
            labels=labels,
            geometry=head.geometry,
            ignore_label=head.ignore_label,
            sources=tuple(dict.fromkeys(source for info in infos for source in info.sources)),
            channel_names=head.channel_names or _channel_names(layout, head.kinds[0].shape),
            forms=tuple(forms) if len(forms) > 1 else (),
            form_of=tuple(numbers[info.common.kinds] for info in infos) if len(forms) > 1 else (),
        )

    def resized(self, size: int) -> "Catalogue":
        """The catalogue of the same images decoded to (size, size, 3); itself where samples are not encoded."""
        return self.changed("input", shape=(size, size, 3)) if self.encoding else self

    def padded(self, to: int | Sequence[int] | None) -> "Catalogue":
        """The catalogue with sequences of different lengths padded to other lengths, or cut.

        Args:
            to: the length, or that of each such part; None keeps those of the longest sequences.
        """
        ragged = [part for part in self.parts if part.lengths]
        if to is None or not ragged:
            return self
        return replace(self, parts=_padded(self.parts, [to] * len(ragged) if isinstance(to, int) else list(to)))

    @property
    def sequence_lengths(self) -> list[int]:
        """The lengths to which sequences of different lengths are padded, of each such part."""
        return [part.shape[0] for part in self.parts if part.lengths]

    def of_form(self, number: int) -> "Catalogue":
        """The catalogue with the parts of the files whose place in `forms` this is."""
        pairs = zip(self.parts, map(Part.of, self.layout.places, self.forms[number]), strict=True)
        parts = tuple(part._replace(dtype=own.dtype, packing=own.packing, missing=own.missing) for part, own in pairs)
        return replace(self, parts=parts, forms=(), form_of=())

    def changed(self, role: str, **fields) -> "Catalogue":
        """The catalogue with other fields of its one input or target, as from `Part`."""
        part = self._one(role)
        return replace(self, parts=tuple(p._replace(**fields) if p is part else p for p in self.parts))

    @property
    def inputs(self) -> tuple[Part, ...]:
        """The inputs of a sample."""
        return self._of("input")

    @property
    def targets(self) -> tuple[Part, ...]:
        """The targets of a sample; none where the inputs are the targets too."""
        return self._of("target")

    @property
    def weights(self) -> tuple[Part, ...]:
        """The sample weights: one part, or none."""
        return self._of("weight")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample; UserError where there are several inputs."""
        return self._one("input").shape

    @property
    def input_dtype(self) -> np.dtype:
        """As stored; UserError where there are several inputs."""
        return self._one("input").dtype

    @property
    def packing(self) -> tuple[tuple[float, float], ...]:
        """(scale, offset) of each data set of the input; UserError where there are several inputs."""
        return self._one("input").packing

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Of one sample; () where there are no targets. UserError where there are several."""
        return self._one("target").shape

    @property
    def target_dtype(self) -> np.dtype:
        """As stored; that of a byte where there are no targets. UserError where there are several."""
        return self._one("target").dtype

    def one_pair(self, command: str) -> None:
        """Refuse several inputs or targets, and sample weights, with a UserError that names the command; collective."""
        several = [part.label for part in self.parts] if len(self.inputs) > 1 or len(self.targets) > 1 else []
        if several or self.weights:
            raise UserError(
                f"{self.directory}: holds {', '.join(several) or 'sample weights'}, and {command} takes one input and "
                "one target; name these with --inputs and --targets"
            ).agreed()

    def _of(self, role: str) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.role == role)

    def _one(self, role: str) -> Part:
        parts = self._of(role)
        if len(parts) > 1:
            names = ", ".join(part.name for part in parts)
            raise UserError(
                f"{self.directory}: has the {role}s {names}, and one is asked for; take them from catalogue.{role}s, "
                f"or name one with --{role}s"
            ).agreed()
        return parts[0] if parts else _NO_TARGET

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
        return self.channel_axis_of(self._one("input"))

    def channel_axis_of(self, part: Part) -> int | None:
        """Axis of a sample of `part` that counts its channels.

        None for a number, for a row of an input without channel names, and for a sequence of numbers.
        """
        if len(part.datasets) > 1:
            return 0
        if len(part.shape) < 2:
            named = self.channel_names if part is self.inputs[0] else part.role == "target"
            return 0 if part.shape and named and not part.lengths else None
        # Of a sequence the first axis counts its steps.
        return 0 if not part.lengths and self.channels == "first" else len(part.shape) - 1

    def channels_of(self, part: Part) -> int:
        """Number of channels of `part`; 1 where no axis counts them."""
        axis = self.channel_axis_of(part)
        return 1 if axis is None else part.shape[axis]

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
        return sum(part.bytes for part in self.parts)

    @property
    def sample_text(self) -> str:
        """Shapes and types of a sample's inputs: "(28, 28, 1) uint8", or "image (28, 28) uint8, meta (3,) int32"."""
        return ", ".join(f"{part.name} {part.shape} {part.dtype}".strip() for part in self.inputs)

    @property
    def labelled(self) -> bool:
        """Whether the targets are class numbers, see `part.labelled`."""
        return labelled(self.layout, self.classes, self.targets)

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


def _padded(parts: tuple[Part, ...], to: list[int]) -> tuple[Part, ...]:
    lengths = iter(to)
    return tuple(part._replace(shape=(next(lengths), *part.shape[1:])) if part.lengths else part for part in parts)


def _find(data, split: str | None, layout: Layout | None) -> tuple[list[str], Layout]:
    folder = Path(data)
    asked = layout is not None and layout.name == SHARDS.name
    if folder.is_dir() or asked:
        shards = _list_shards(folder, split, needed=asked)
        if shards and layout is not None and not asked:
            raise UserError(f"{folder}: holds shards, not layout {layout.name}; leave out --layout or --inputs")
        if shards:
            return shards, shard_layout(shards[0])
    files = find_files(data, split)
    return files, layout or recognise(files[0])


def _channel_names(layout: Layout, input_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the channels that follow from the layout: stacked data sets are named like their variables."""
    if layout.input_names:
        return ()
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
