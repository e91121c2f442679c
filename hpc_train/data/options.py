"""The options that choose the data of a command or a trainer."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hpc_train.errors import UserError

SYNTHETIC = "synthetic"
_MOST_LABELS = 2**16


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how they are stored in their files."""

    GROUP = "data"

    data: Path
    """Where the data is: a folder of shards; a folder with a sub-folder for each split (train/, validation/ or test/)
    or with the files themselves; one HDF5 or NetCDF-4 file; or a quoted pattern such as 'run*/*.h5'."""
    layout: Literal["auto", "shards", "cam5", "paper", "climatenet"] = "auto"
    """How the samples are stored in a file; auto: recognise it from the first file."""
    inputs: tuple[str, ...] = ()
    """Data sets of the inputs, for files of any other layout. Several are stacked as channels; with names, as in
    images=a/b meta=c/d, they are several inputs of the network."""
    targets: tuple[str, ...] = ()
    """Data sets of the targets, named likewise; without them the inputs are the targets. A data set that ends in [k]
    takes index k of the first axis of a sample, if no data set has exactly this name."""
    sample_weights: str | None = None
    """With --inputs: data set of the sample weights, which multiply the loss of a sample."""
    lengths: tuple[str, ...] = ()
    """With --inputs: data set of the lengths of sequences that lie one after the other, as DATASET, or NAME=DATASET for
    an input or target with a name. They are padded with zeros."""
    sequence_length: int | None = None
    """With --lengths: length to which sequences are padded, or cut; by default that of the longest one in the training
    data."""
    samples: Literal["rows", "files"] = "rows"
    """With --inputs: rows: the first axis of a data set counts the samples; files: each file is one sample."""
    channels: Literal["first", "last", "none"] = "last"
    """With --inputs: the axis of a sample that counts the channels; none: samples are maps (height, width) of one
    channel, for which an axis is added, the last one."""
    classes: int | None = None
    """Number of classes, if the files do not say it."""
    class_names: tuple[str, ...] = ()
    """Names of the classes 0, 1, 2, ..., such as glaze crack hole; by default those in the files, if they have any."""
    label_values: tuple[str, ...] = ()
    """Stored labels of classes 0, 1, 2, ..., where these are other numbers: 0 255 for masks, 1..10 for labels that
    begin at 1."""

    follow_external: bool = False
    """Also read what links, virtual data sets and external storage take from files outside the folder of --data."""

    def layout_of_files(self):
        """The `data.catalogue.layout.Layout` that the options name; None to recognise it from the files."""
        from hpc_train.data.catalogue import layout

        if self.inputs:
            if self.layout != "auto":
                raise UserError(f"--inputs and --layout {self.layout} both name the data sets; give one of the two")
            inputs, input_names = layout.named("--inputs", self.inputs)
            targets, target_names = layout.named("--targets", self.targets)
            names = input_names, target_names
            how = self.samples == "rows", self.channels, *names, self.sample_weights or "", self._lengths(*names)
            return layout.Layout("custom", inputs, targets, *how)
        for name in ("targets", "sample_weights", "lengths"):
            if getattr(self, name):
                raise UserError(f"--{name.replace('_', '-')} needs --inputs; give both")
        if (self.samples, self.channels) != ("rows", "last"):
            raise UserError("--samples and --channels are for data sets named with --inputs; leave them out")
        if self.layout in ("auto", "climatenet"):
            return None
        return {"shards": layout.SHARDS, "cam5": layout.CAM5, "paper": layout.PAPER}[self.layout]

    def _lengths(self, inputs: tuple[str, ...], targets: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """(`Place.label`, data set) of --lengths, for inputs and targets of these names."""
        from hpc_train.data.catalogue.layout import named

        lengths, names = named("--lengths", self.lengths)
        labels = {name: f"input {name}".strip() for name in inputs or ("",)}
        labels |= {name: f"target {name}" for name in targets if name not in labels}
        pairs = list(zip(names or ("",) * len(lengths), lengths, strict=True))
        for name, dataset in pairs:
            if name not in labels:
                there = f"name one of {', '.join(filter(None, labels))}" if any(labels) else "leave the name out"
                raise UserError(f"--lengths {dataset}: no input or target has the name {name!r}; {there}")
        return tuple((labels[name], dataset) for name, dataset in pairs)

    def labels(self) -> tuple[int, ...]:
        """Stored labels of the classes, from --label-values; () where they are the numbers of the classes.

        Raises:
            UserError: for what is no list of different whole numbers, and for another number of --classes.
        """
        values: list[int] = []
        for word in self.label_values:
            match = re.fullmatch(r"(-?\d+)(?:\.\.(-?\d+))?", word)
            if not match:
                raise UserError(f"--label-values {word}: give whole numbers, such as 0 255, or 1..10 for 1 to 10")
            first, last = int(match[1]), int(match[2] or match[1])
            if not 0 <= last - first < _MOST_LABELS:
                raise UserError(f"--label-values {word}: give the lower number first, at most {_MOST_LABELS} labels")
            values += range(first, last + 1)
        if len(set(values)) < len(values):
            raise UserError(f"--label-values {' '.join(self.label_values)}: names a label twice")
        if values and self.classes not in (None, len(values)):
            raise UserError(f"--label-values names {len(values)} labels, but --classes is {self.classes}; leave it out")
        return tuple(values)

    def catalogue(
        self, split: str | None = "train", comm=None, data: Path | None = None, classes: int | None = None, mixed=False
    ):
        """The `data.catalogue.Catalogue` of `split`, in `data` instead of --data if given; collective over `comm`.

        mixed: as in `Catalogue.open`.
        """
        from hpc_train.data.catalogue import Catalogue

        for name in ("classes", "sequence_length"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        asked, labels = self.layout_of_files(), self.labels()
        known = classes or self.classes or len(labels) or None
        catalogue = Catalogue.open(data or self.data, split, asked, known, comm, labels, mixed, self.follow_external)
        if self.classes and len(catalogue.targets) > 1:
            raise UserError(
                f"--classes {self.classes}: there are several targets, whose losses say what they are; leave it out"
            ).agreed()
        if self.sequence_length is not None and not catalogue.sequence_lengths:
            raise UserError("--sequence-length is for sequences with --lengths; leave it out").agreed()
        catalogue = catalogue.padded(self.sequence_length)
        if self.layout not in ("auto", catalogue.layout.name):
            raise UserError(
                f"{catalogue.files[0]}: layout {catalogue.layout.name}, not {self.layout}; leave --layout out"
            ).agreed()
        return self.named(catalogue, catalogue.classes) if self.class_names else catalogue

    def named(self, catalogue, classes: int):
        """The catalogue, of this number of classes (0 if unknown), with the names of --class-names; collective."""
        names = self.class_names
        if len(set(names)) < len(names):
            raise UserError(f"--class-names {' '.join(names)}: names a class twice; give each its own name").agreed()
        if classes not in (0, len(names)):
            raise UserError(
                f"{catalogue.files[0]}: has {classes} classes, but --class-names has {len(names)} names; give one for "
                "each class, from class 0"
            ).agreed()
        return replace(catalogue, classes=len(names), class_names=names)


@dataclass(frozen=True)
class SyntheticOptions:
    """What --data synthetic means."""

    GROUP = "data"

    synthetic_samples: int = 1281167
    """With --data synthetic: the number of samples in an epoch; by default that of ImageNet. --data synthetic needs no
    files: every step gets the same random images, of 1000 classes or of --classes. For a folder of that name give
    $PWD/synthetic."""


@dataclass(frozen=True)
class ScaleOptions:
    """How values are scaled on their way to a network of one's own."""

    GROUP = "data"

    normalise: tuple[Literal["inputs", "targets"], ...] = ()
    """Scale these to mean 0 and standard deviation 1, channel by channel, by --statistics; `hpc-train predict` scales
    predicted targets back. Packed numbers (scale_factor, add_offset) are real values in any case."""
    statistics: Path | None = None
    """With --normalise: statistics.h5 of `hpc-train stats`; by default that in the folder of --data."""


@dataclass(frozen=True)
class DecodeOptions:
    """How encoded images become samples."""

    GROUP = "image"

    image_size: int = 224
    """Side in pixels of the images that JPEG shards are decoded to, and of those of --data synthetic."""
    crop: Literal["inception", "centre"] = "inception"
    """The part of a JPEG to train on. inception: a random part of 8 to 100 % of its area, mirrored half of the time;
    centre: the centre, which validation always uses."""


@dataclass(frozen=True)
class ReadOptions(DecodeOptions, SyntheticOptions):
    """How a trainer reads and shuffles its data."""

    GROUP = "reading"

    shuffle: Literal["auto", "full", "blocks"] = "auto"
    """full: any sample can come at any place of an epoch; blocks: samples that are read together are mixed in a
    window; auto: blocks if several samples share a compressed chunk or --shuffle-block or --shuffle-window is given,
    else full."""
    shuffle_block: int | None = None
    """Samples in a block; by default those in one read of 4 MiB, in whole chunks."""
    shuffle_window: int | None = None
    """Samples that are mixed with each other; by default 16 blocks."""
    reader: Literal["auto", "map", "read", "h5py"] = "auto"
    """How bytes are read. map: from files mapped into memory; read: with positioned reads; h5py: with h5py; auto: map
    or read, by the size of a sample. Only h5py decodes chunks inside HDF5."""
    read_threads: int | None = None
    """Threads of each rank that read and decode. Storage with high latency needs more threads than there are cores."""
    read_ahead: int | None = None
    """Batches in memory or being read; by default as many as fit in 512 MiB."""
    stage: str | None = None
    """Copy the data to this folder of each node's own storage first, and read it there. Copies that are already there
    are kept. A variable in single quotes ('$TMPDIR/data') is expanded on each node."""

    def check_images(self, encoding: str) -> None:
        """UserError for an impossible image size, and for options of encoded images where `encoding` is ""."""
        if self.image_size < 1:
            raise UserError(f"--image-size is {self.image_size}; it must be at least 1").agreed()
        if self.synthetic_samples != ReadOptions.synthetic_samples:
            raise UserError("--synthetic-samples is for --data synthetic; give both or leave it out").agreed()
        for name in ("image_size", "crop"):
            if not encoding and getattr(self, name) != getattr(ReadOptions, name):
                raise UserError(
                    f"--{name.replace('_', '-')} is for JPEG shards, but --data holds arrays, which are used as they "
                    "are; leave it out"
                ).agreed()


def is_synthetic(options) -> bool:
    """Whether --data is synthetic; a folder of that name is given by its absolute path."""
    return str(options.data) == SYNTHETIC


@dataclass(frozen=True)
class IgnoreOptions(DataOptions):
    """Which labels of maps do not count."""

    GROUP = "field"

    ignore_label: int | None = None
    """A stored label whose pixels are ignored, such as 255; it may be outside the classes. By default the one that
    shards record, if any."""

    def ignored_label(self, catalogue) -> int | None:
        """The stored label that is ignored in a catalogue, or None."""
        return catalogue.ignore_label if self.ignore_label is None else self.ignore_label


@dataclass(frozen=True)
class LabelOptions(IgnoreOptions):
    """Which labels of maps are used."""

    GROUP = "field"

    annotation: int = 0
    """Number N of the label map to use, if a sample has several: climate/labels_N in CAM5 files, index N of the first
    axis in other files."""

    def check_annotation(self) -> None:
        """UserError for a number that no label map can have."""
        if self.annotation < 0:
            raise UserError(f"--annotation is {self.annotation}; label maps are counted from 0")

    def with_channels(self, catalogue):
        """The catalogue with an axis of channels, of length 1, where samples and labels are both (height, width)."""
        one = len(catalogue.inputs) == len(catalogue.targets) == 1 and catalogue.labelled
        if not one or len(catalogue.input_shape) != 2 or catalogue.input_shape != catalogue.target_shape:
            return catalogue
        return replace(catalogue, parts=(catalogue.inputs[0].with_channel(), *catalogue.parts[1:]), channels="last")

    def one_label_map(self, catalogue, comm=None):
        """The catalogue with only the label map that --annotation names, where a sample has several; collective.

        Raises:
            UserError: on every rank, when there is no such label map.
        """
        from hpc_train.data.hdf5.contents import split_name

        number, (first, *_) = self.annotation, catalogue.files
        if not number and (not catalogue.labelled or len(catalogue.inputs) > 1):
            return catalogue
        shape, targets = catalogue.target_shape, catalogue.layout.targets
        if catalogue.layout.name == "cam5" and number:
            layout = replace(catalogue.layout, targets=(f"climate/labels_{number}",))
            more = catalogue.classes or None, comm, (), self.follow_external
            other = catalogue.open(catalogue.directory, catalogue.split, layout, *more)
            return replace(other, channel_names=catalogue.channel_names)
        several = len(shape) == 3 and len(catalogue.input_shape) == 3
        if not several and not number:
            return catalogue
        if not several or number >= shape[0]:
            maps = f"label maps 0 to {shape[0] - 1}" if several else "one label map a sample"
            raise UserError(f"{first}: has {maps}, so there is no --annotation {number}").agreed()
        if len(targets) > 1:
            raise UserError(f"{first}: --targets names {len(targets)} label maps; name the one to use").agreed()
        layout = replace(catalogue.layout, targets=(f"{split_name(targets[0])[0]}[{number}]",))
        return replace(catalogue, layout=layout).changed("target", datasets=layout.targets, shape=shape[1:])
