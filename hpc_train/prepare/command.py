"""`hpc-train prepare`: turns a data set into the suite's shards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpc_train.data.shards.compression import Compression
from hpc_train.errors import UserError
from hpc_train.prepare.images.options import ImageOptions

_Name = Literal["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "idx", "npz", "image-folder"]
_TAKE_INPUT = ("mnist", "fashion-mnist", "cifar10", "cifar100", "idx", "npz", "image-folder")
_NEED_INPUT = {
    "idx": "the folder of the IDX files",
    "npz": "the npz file",
    "image-folder": "the folder that holds train/CLASS/*.jpg",
}


@dataclass(frozen=True, kw_only=True)
class Prepare(ImageOptions):
    """Turn a data set into sharded HDF5 files for the trainers.

    More commands, each with its own --help: `hpc-train prepare csv`, `prepare parquet` and `prepare arrays` take your
    own tables and NumPy arrays, `prepare masks` pictures with a mask for each. `hpc-train prepare climate-synthetic`
    makes weather with cyclones and rivers, `hpc-train prepare storm-tracks` labels real winds by the tracks of storms.
    """

    GROUPS = "options", "image-folder"
    GROUP = "options"

    source: Annotated[_Name, tyro.conf.Positional]
    """digits: scikit-learn's handwritten digits, which need no network. mnist, fashion-mnist: IDX files or an
    npz file given with --input; without it, Fashion-MNIST comes from Debian's dataset-fashion-mnist if that is
    installed, else Keras downloads the data. cifar10, cifar100 (fine labels): the python or binary archive, or its
    folder, given with --input; without it, Keras downloads the data. idx: any folder with MNIST's four IDX files,
    gzipped or not. npz: NumPy arrays. image-folder: image files in class folders input/train/CLASS and
    input/val/CLASS, in input/CLASS with --test-fraction, or in --lists."""
    input: Path | None = None
    """Folder of the IDX files, npz file, CIFAR archive, or folder of images."""
    output: Path | None = None
    """Folder for the shards; by default shards/SOURCE."""
    shards: int | None = None
    """Number of files of each split; by default at least 4, of about 256 MiB each."""
    classes: int | None = None
    """For idx and npz: number of classes; by default the largest label + 1."""
    keys: tuple[str, ...] | None = None
    """For npz: names of the arrays, two if there is no test part; by default x_train y_train x_test y_test."""
    test_fraction: float | None = None
    """For npz and image-folder without a test part: the share of every class to use for testing, such as 0.2."""
    compression: Compression = "none"
    """none is the fastest to read. The others store the inputs in compressed chunks; zstd is small and fast. Not for
    JPEG shards."""


def run(options):
    """Write the shards of `options.source` and print one line for each split.

    Raises:
        UserError: an option or the input is wrong, or the shards cannot be written.
    """
    _check_options(options)
    output = options.output or Path("shards", options.source)
    from hpc_train.prepare.splits import mention_others

    if options.source == "image-folder":
        from hpc_train.prepare.images.shards import prepare_images

        mention_others(output, prepare_images(options, output))
    else:
        _prepare_arrays(options, output)


def _prepare_arrays(options, output):
    """Write the shards of arrays in memory."""
    source = _load(options)
    classes = source.classes if options.classes is None else options.classes

    _check_same_kind(source)

    from hpc_train.prepare.splits import write_splits

    write_splits(
        output,
        source.splits,
        classes=classes,
        class_names=source.class_names,
        shards=options.shards,
        source=source.provenance,
        compression=options.compression,
    )


def _check_options(options):
    source = options.source
    for name, value, sources in (
        ("input", options.input, _TAKE_INPUT),
        ("classes", options.classes, ("idx", "npz")),
        ("keys", options.keys, ("npz",)),
        ("test-fraction", options.test_fraction, ("npz", "image-folder")),
    ):
        if value is not None and source not in sources:
            raise UserError(f"--{name} is for {', '.join(sources)}, not for {source}; leave it out")
    if source in _NEED_INPUT and options.input is None:
        raise UserError(f"{source} needs --input: {_NEED_INPUT[source]}")
    options.check(source == "image-folder")
    if source == "image-folder" and options.size is None and options.compression != "none":
        raise UserError("--compression is for pixels; JPEG files are compressed already: leave it out, or give --size")
    if options.keys is not None and len(options.keys) not in (2, 4):
        raise UserError(f"--keys has {len(options.keys)} names; give two (train) or four (train and test)")
    if options.test_fraction is not None and not 0 < options.test_fraction < 1:
        raise UserError(f"--test-fraction is {options.test_fraction}; give a number between 0 and 1")
    if options.classes is not None and options.classes < 1:
        raise UserError(f"--classes is {options.classes}; give at least 1")


def _check_same_kind(source):
    kinds = [f"{inputs.shape[1:]} {inputs.dtype}" for inputs, _ in source.splits.values()]
    if len(set(kinds)) > 1:
        raise UserError(
            f"{source.provenance}: train samples are {kinds[0]}, but test samples are {kinds[1]}; give both the same "
            "shape and type"
        )


def _load(options):
    from hpc_train.prepare import sources

    match options.source:
        case "digits":
            return sources.digits()
        case "mnist":
            return sources.mnist(options.input)
        case "fashion-mnist":
            return sources.fashion_mnist(options.input)
        case "cifar10" | "cifar100":
            from hpc_train.prepare.cifar import cifar

            return cifar(options.source, options.input)
        case "idx":
            return sources.idx(options.input)
        case "npz":
            return sources.npz(options.input, options.keys or sources.NPZ_KEYS, options.test_fraction)
