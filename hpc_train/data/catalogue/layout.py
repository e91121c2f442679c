"""Layouts: which files belong to a split, and which data sets of a file hold its inputs and targets."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpc_train.data.hdf5.access import open_hdf5, reason
from hpc_train.data.hdf5.contents import UNREADABLE, datasets_of, member, text_attribute
from hpc_train.data.hdf5.open_errors import GRIB, is_grib, unreadable
from hpc_train.data.shards.format import FORMAT
from hpc_train.data.shards.names import parse_shard_name
from hpc_train.errors import UserError

# The classes of the published climate data, in the order that Kurth et al. (2018) and DeepCAM number them.
CLIMATE_CLASSES = ("background", "tc", "ar")
# Files of statistics, which are beside the data that they describe.
STATISTICS_FILES = ("statistics.h5", "stats.h5", "stats_paper.h5")
SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".cdf")
HELD_OUT = ("validation", "val", "test")
# The order of the published CAM5 data, for the variables of ClimateNet files.
CAM5_CHANNELS: tuple[str, ...] = ("TMQ", "U850", "V850", "UBOT", "VBOT", "QREFHT", "PS", "PSL")
CAM5_CHANNELS += ("T200", "T500", "PRECT", "TS", "TREFHT", "Z1000", "Z200", "ZBOT")
_MOST_NAMES = 12
# Files without a known suffix that are opened to see whether they are HDF5.
_MOST_TRIED = 64


class Place(NamedTuple):
    """Where one array of a sample is.

    Args:
        role: "input", "target" or "weight".
        name: Keras's name of the input or output; "" for the only one of its kind.
        datasets: its data sets; several are stacked on a new first axis of the sample.
        lengths: of sequences of different lengths, which lie one after the other, the data set of their lengths.
    """

    role: str
    name: str
    datasets: tuple[str, ...]
    lengths: str = ""

    @property
    def label(self) -> str:
        """How messages name it: "input", "target mask"."""
        return f"{self.role} {self.name}".strip()


@dataclass(frozen=True)
class Layout:
    """Where in a file the samples are.

    Args:
        name: name of the layout.
        inputs: data sets of the inputs; several without names are stacked on a new first axis of the sample. A data
            set that ends in [k] takes index k of the first axis of a sample.
        targets: data sets of the targets, likewise; without any, the inputs are the targets too.
        rows: the first axis of the data sets counts the samples; else a file is one sample.
        channels: "first" or "last" axis of an input sample; "none": it has none, and the last one is added.
        input_names: Keras's name of the input of each of `inputs`, or none; those with the same name are stacked.
        target_names: of the targets, likewise.
        weights: data set of the sample weights, or "".
        lengths: (`Place.label`, data set of the lengths) of sequences of different lengths.
    """

    name: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    rows: bool
    channels: str
    input_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    weights: str = ""
    lengths: tuple[tuple[str, str], ...] = ()

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Data sets of the places, in their order."""
        return tuple(dataset for place in self.places for dataset in place.datasets)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where the arrays of a sample are: inputs, then targets, then weights."""
        inputs = _grouped("input", self.inputs, self.input_names)
        weights = (Place("weight", "", (self.weights,)),) if self.weights else ()
        places = (*inputs, *_grouped("target", self.targets, self.target_names), *weights)
        of = dict(self.lengths)
        return tuple(place._replace(lengths=of.get(place.label, "")) for place in places)


def _grouped(role: str, datasets: tuple[str, ...], names: tuple[str, ...]) -> tuple[Place, ...]:
    groups: dict[str, list[str]] = {}
    for dataset, name in zip(datasets, names or ("",) * len(datasets), strict=True):
        groups.setdefault(name, []).append(dataset)
    return tuple(Place(role, name, tuple(held)) for name, held in groups.items())


def split_word(word: str) -> tuple[str, str]:
    """("images", "a/b") of "images=a/b"; ("", word) of a word without a name."""
    match = re.fullmatch(r"(\w[\w.-]*)=(.+)", word, re.DOTALL)
    return (match[1], match[2]) if match else ("", word)


def named(option: str, words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(data sets, Keras's names) of words such as "images=a/b"; no names where the words are data sets alone.

    Raises:
        UserError: some words have names and others none.
    """
    pairs = list(map(split_word, words))
    names = tuple(name for name, _ in pairs)
    if any(names) and not all(names):
        bare = next(word for name, word in pairs if not name)
        raise UserError(f"{option} {bare}: has no name, but others have one; write NAME={bare}, or leave all names out")
    return tuple(dataset for _, dataset in pairs), names if any(names) else ()


SHARDS = Layout("shards", ("inputs",), ("targets",), rows=True, channels="last")
CAM5 = Layout("cam5", ("climate/data",), ("climate/labels_0",), rows=False, channels="last")
PAPER = Layout("paper", ("climate/data",), ("climate/labels",), rows=False, channels="first")


def find_splits(data) -> list[str]:
    """Names of the splits in a folder: those of its shards, or its sub-folders with data files; may be empty."""
    folder = Path(data)
    if not folder.is_dir():
        return []
    names = listed(folder)
    shards = {parsed[0] for parsed in map(parse_shard_name, names) if parsed}
    known = [name for name in ("train", *HELD_OUT) if (folder / name).is_dir() and _data_files(folder / name)]
    return sorted(shards) or known


def find_files(data, split: str | None) -> list[str]:
    """Data files of `split` in `data`, sorted. Not for shards, whose names hold more.

    Args:
        data: a file, a pattern with * or ?, a folder with sub-folders named like the splits, or a folder of files,
            which are then the training split.
        split: name of the split; None for all that `data` holds, where it is not divided.

    Raises:
        UserError: when there is no such file.
    """
    path = Path(data)
    if path.is_file():
        return [os.fspath(path)]
    if path.is_dir():
        below = path / split if split else path
        if below != path and below.is_dir():
            return _some(_data_files(below), below)
        here = _data_files(path)
        if here and split in (None, "train"):
            return here
        splits = find_splits(path)
        if splits:
            raise UserError(f"{path}: has no split {split!r}, but {', '.join(splits)}; name one of these")
        if here:
            raise UserError(f"{path}: has no sub-folder {split!r}; give the data of this split separately")
        return _some(here, path)
    if glob.has_magic(os.fspath(data)):
        matches = sorted(glob.glob(os.fspath(data), recursive=True))
        found = [name for name in matches if os.path.isfile(name) and os.path.basename(name) not in STATISTICS_FILES]
        if not found:
            raise UserError(f"{data}: no file matches this pattern; check it, and put it in quotes")
        return found
    if path.exists():
        raise UserError(f"{data}: is no file but a pipe or a device; give a file, a folder, or a quoted pattern")
    raise UserError(
        f"{data}: no such file or folder; give a folder (`hpc-train prepare` makes one), a file, or a quoted pattern"
    )


def data_folder(data) -> str:
    """The folder of the data: that of a file, and of a pattern the folders ahead of its first wildcard."""
    path = Path(data)
    if path.is_dir():
        return str(path)
    if path.is_file():
        return str(path.parent)
    return str(Path(*takewhile(lambda name: not glob.has_magic(name), path.parent.parts)))


def list_files(data) -> list[str]:
    """All data files in `data`, in every split and sub-folder: those that staging copies."""
    path = Path(data)
    if not path.is_dir():
        return find_files(data, None)
    found = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        found += [os.path.join(folder, name) for name in sorted(names) if _is_data(name)]
    return _some(found, path)


def recognise(path: str) -> Layout:
    """The layout of a file; UserError, which names its data sets, for an unknown layout."""
    try:
        with open_hdf5(path) as file:
            return _recognise(file, path)
    except UNREADABLE as error:
        raise UserError(unreadable(path, error)) from error


def _recognise(file: h5py.File, path: str) -> Layout:
    kind = text_attribute(file, "format")
    if kind == FORMAT:
        return layout_of_shard(file)
    if kind == "hpc-train statistics":
        raise UserError(f"{path}: holds statistics, not samples; give the data that they describe")
    if _has(file, "climate/data"):
        return PAPER if _has(file, "climate/labels") else CAM5
    if _has(file, "LABELS") and _has(file, "TMQ"):
        return _climatenet(file, path)
    there = [f"{name} {dataset.shape}" for name, dataset in datasets_of(file).items()]
    more = f" and {len(there) - _MOST_NAMES} more" if len(there) > _MOST_NAMES else ""
    raise UserError(
        f"{path}: the layout is unknown; name its data sets with --inputs and --targets; it has "
        f"{', '.join(there[:_MOST_NAMES]) or 'none'}{more}"
    )


def _has(file: h5py.File, name: str) -> bool:
    return isinstance(member(file, name), h5py.Dataset)


def layout_of_shard(file: h5py.File) -> Layout:
    """The layout of an open shard: it names its arrays from version 4 on."""
    parts = file.attrs.get("parts")
    if parts is None:
        return SHARDS
    parts = [part.decode() if isinstance(part, bytes) else str(part) for part in np.ravel(parts)]
    found = {role: [part for part in parts if part.split("/")[0] == role] for role in ("inputs", "targets")}
    names = {role: tuple(part.partition("/")[2] for part in held) for role, held in found.items()}
    return replace(
        SHARDS,
        inputs=tuple(found["inputs"]),
        targets=tuple(found["targets"]),
        input_names=names["inputs"] if any(names["inputs"]) else (),
        target_names=names["targets"] if any(names["targets"]) else (),
        weights="weights" if "weights" in parts else "",
    )


def _climatenet(file: h5py.File, path: str) -> Layout:
    """The layout of a ClimateNet file: one time, for which fields or LABELS may have an axis of length 1."""
    named = {name: member(file, name) for name in ("LABELS", *CAM5_CHANNELS)}
    shapes = {name: dataset.shape for name, dataset in named.items() if isinstance(dataset, h5py.Dataset)}
    labels = shapes["LABELS"]
    alike = [name for name in CAM5_CHANNELS if shapes.get(name, ())[-2:] == labels[-2:]]
    leading = {shapes[name][:-2] for name in alike}
    if len(leading) != 1 or not (leading == {labels[:-2]} or leading | {labels[:-2]} == {(), (1,)}):
        raise UserError(f"{path}: LABELS {labels} does not fit the fields; name them with --inputs and --targets")
    if leading == {labels[:-2]}:
        return Layout("climatenet", tuple(alike), ("LABELS",), rows=len(labels) > 2, channels="first")
    # Take index 0 of the time axis that either the fields or LABELS have.
    fields = tuple(name if len(shapes[name]) == 2 else f"{name}[0]" for name in alike)
    return Layout("climatenet", fields, ("LABELS" if len(labels) == 2 else "LABELS[0]",), rows=False, channels="first")


def listed(folder: Path) -> list[str]:
    """Names in a folder, sorted; UserError when it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(
            f"{folder}: the folder cannot be read ({reason(error)}); check the path and its permissions"
        ) from error


def _data_files(folder: Path) -> list[str]:
    return [os.path.join(folder, name) for name in listed(folder) if _is_data(name)]


def _is_data(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".") and name not in STATISTICS_FILES


def _some(found: list[str], folder: Path) -> list[str]:
    if found:
        return found
    tried = [name for name in listed(folder)[:_MOST_TRIED] if not name.startswith(".") and (folder / name).is_file()]
    if grib := next((name for name in tried if is_grib(folder / name)), None):
        raise UserError(f"{folder / grib}: {GRIB}")
    # MATLAB's .mat, .nxs, .h5ad, .nwb and others are HDF5 as well.
    if other := next((name for name in tried if h5py.is_hdf5(os.path.join(folder, name))), None):
        raise UserError(
            f"{folder}: no data files ({' '.join(SUFFIXES)}) in this folder, but {other} is HDF5; give a quoted "
            f"pattern of such names: --data '{folder}/*{os.path.splitext(other)[1]}'"
        )
    raise UserError(
        f"{folder}: no data files ({' '.join(SUFFIXES)}) in this folder; give the right one, or make it with "
        "`hpc-train prepare`"
    )
