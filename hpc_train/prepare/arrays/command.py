"""`hpc-train prepare arrays`: NumPy arrays of any shape as shards."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hpc_train.console import say
from hpc_train.data.shards.compression import Compression
from hpc_train.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Turn NumPy arrays of any shape and numeric type into sharded HDF5 files for the trainers.

    The first axis counts the samples. Arrays of .npy files are never in memory as a whole; those of an npz file are.
    Values are stored in the type that they have.
    """

    inputs: str
    """The .npy file of the inputs; with --data, the name of their array."""
    targets: str | None = None
    """The .npy file, or array, of the targets: numbers of any shape, or with --classes class numbers. If the network
    shall give back its input, name the inputs here too."""
    output: Path
    """Folder for the shards."""
    data: Path | None = None
    """The npz file that holds the arrays."""
    classes: int | None = None
    """Targets are class numbers from 0, and there are this many classes; by default they are values."""
    test_fraction: float | None = None
    """Share of the samples to use for testing, such as 0.2, the same of every class; 0: no test part."""
    seed: int = 0
    """Seed of the choice of the test samples: the same seed and number of samples give the same choice."""
    test_inputs: str | None = None
    """The .npy file, or array, of the test inputs, instead of --test-fraction."""
    test_targets: str | None = None
    """The .npy file, or array, of the test targets."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, such as glaze crack hole, instead of --classes."""
    geometry: Literal["globe", "region", "picture"] | None = None
    """What maps show, if the samples are maps: the whole Earth, a part of it, or no map, such as photographs."""
    ignore_label: int | None = None
    """With --classes or --class-names: a target, such as 255, of pixels that do not count."""
    channels: Literal["last", "first", "none"] = "last"
    """The axis of an input sample that counts its channels; none: samples are maps (height, width) of one channel, for
    which an axis is added."""
    channel_names: tuple[str, ...] = ()
    """Names of the channels."""
    shards: int | None = None
    """Number of files of each split; by default at least 4, of about 256 MiB each."""
    compression: Compression = "none"
    """none is the fastest to read. The others store the inputs in compressed chunks; zstd is small and fast."""


def run(options: Arrays) -> None:
    """Write the shards, and print a line about each split.

    Raises:
        UserError: an option or an array is wrong, or the shards cannot be written.
    """
    _check_options(options)
    if options.class_names:
        options = replace(options, classes=len(options.class_names))
    from hpc_train.prepare.arrays.samples import read_splits
    from hpc_train.prepare.splits import write_splits

    names = {"train": (options.inputs, options.targets)}
    if options.test_inputs:
        names["test"] = options.test_inputs, options.test_targets
    splits = read_splits(options, names)
    targets = splits["train"][1]
    if options.classes is None and targets.dtype.kind in "ui":
        say("note: the targets are whole numbers, stored as values; for class numbers give --classes", sys.stderr)
    write_splits(
        options.output,
        splits,
        classes=options.classes or 0,
        class_names=options.class_names,
        geometry=options.geometry or "",
        ignore_label=options.ignore_label,
        channels="first" if options.channels == "first" else "last",
        channel_names=options.channel_names,
        source=f"arrays {options.inputs} and {options.targets}" + (f" of {options.data}" if options.data else ""),
        shards=options.shards,
        compression=options.compression,
    )


def _check_options(options: Arrays) -> None:
    if options.targets is None:
        raise UserError(
            "--targets is missing: shards hold a target for each input; for a network that gives back its input, "
            f"give --targets {options.inputs}"
        )
    if (options.test_inputs is None) != (options.test_targets is None):
        raise UserError("--test-inputs and --test-targets belong together; give both, or neither")
    if (options.test_fraction is None) == (options.test_inputs is None):
        raise UserError(
            "which samples are for testing? give either --test-fraction 0.2 (0 for no test part), or --test-inputs and "
            "--test-targets"
        )
    if options.test_fraction is not None and not 0 <= options.test_fraction < 1:
        raise UserError(f"--test-fraction is {options.test_fraction}; give at least 0, and less than 1")
    if options.ignore_label is not None and not (options.classes or options.class_names):
        raise UserError("--ignore-label is for class numbers; give --classes or --class-names too")
    if options.class_names and options.classes not in (None, len(options.class_names)):
        raise UserError(
            f"--class-names has {len(options.class_names)} names, but --classes is {options.classes}; leave it out"
        )
    if options.classes is not None and options.classes < 1:
        raise UserError(f"--classes is {options.classes}; give at least 1")
