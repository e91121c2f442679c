"""How data sets are stored, as plain values for `hpc-train inspect`."""

import re
import sys
from contextlib import suppress
from math import prod

import h5py
import numpy as np

from hpc_train.data.catalogue.conventions import UNPACKED, Missing, Numbers, numbers_of
from hpc_train.data.hdf5.access import elsewhere, open_hdf5, reason
from hpc_train.data.hdf5.contents import UNREADABLE, dataset_at, datasets_of, path_at
from hpc_train.data.hdf5.filters import NOT_COMPRESSING, filter_names, load_plugins
from hpc_train.data.hdf5.sources import MissingSource, sources
from hpc_train.errors import UserError
from hpc_train.names import printable

# Opening more files would take long, and the files of a data set are mostly stored alike.
_LOOKED_AT = 8
_LABELS = re.compile(r"label|target|mask|class|truth|^y(_|$)", re.IGNORECASE)


def stored(catalogue) -> list[dict]:
    """Describe each data set of the layout, as stored in the first file, and name sampled files that differ from it."""
    from hpc_train.data.reading.encoded_reader import open_reader

    load_plugins()
    numbers = np.unique(np.linspace(0, len(catalogue.files) - 1, _LOOKED_AT).astype(int))
    tables = [_file_table(catalogue.files[number], catalogue.layout.datasets) for number in numbers]
    reader = open_reader(catalogue)
    entries = []
    for place, (name, line) in enumerate(zip(catalogue.layout.datasets, reader.describe(), strict=True)):
        entry, row = tables[0][place], prod(tables[0][place]["shape"][1:])
        entry["name"], entry["reading"] = name, line.removeprefix(f"{name}: ")
        entry["differs"] = [
            catalogue.files[number]
            for number, table in zip(numbers, tables, strict=True)
            if any(table[place][key] != entry[key] for key in ("storage", "chunks", "filters", "byte_order"))
        ]
        sample = row if catalogue.layout.rows else prod(entry["shape"])
        chunk = prod(entry["chunks"] or [1])
        entry["chunks_a_sample"] = -(-sample // chunk) if entry["chunks"] else 0
        entries.append(entry)
    reader.close()
    return entries


def foreign(files: list[str]) -> dict | None:
    """Describe the data sets in the first file that opens, for files of unknown layout; None if no file opens."""
    load_plugins()
    for path in files:
        try:
            with open_hdf5(path) as file:
                entries = [
                    {"name": name, **_entry_or_none(dataset), "sources": _taken_from(file, name)}
                    for name, dataset in datasets_of(file).items()
                ]
        except UNREADABLE:
            continue
        return {"files": len(files), "file": path, "datasets": entries} if entries else None
    return None


def _entry_or_none(dataset: h5py.Dataset) -> dict:
    """`entry`, or one that says why the data set cannot be read."""
    try:
        return entry(dataset)
    except UNREADABLE as error:
        nothing = dict.fromkeys(("byte_order", "chunks", "chunk_bytes", "ratio", "packed"))
        nothing |= dict.fromkeys(("number", "compressed", "resizable", "scale_of_dimension"), False)
        nothing |= {"shape": [], "dtype": "no numbers", "filters": [], "missing": [], "valid": [None, None]}
        return {**nothing, "storage": f"cannot be read ({reason(error)})"}


def entry(dataset: h5py.Dataset) -> dict:
    """Describe how one data set is stored."""
    filters = filter_names(dataset)
    number = dataset.dtype.kind in "uifb"
    size = dataset.dtype.itemsize
    held = dataset.id.get_storage_size()
    order = {"<": "little", ">": "big", "=": sys.byteorder}.get(dataset.dtype.byteorder)
    if dataset.chunks:
        storage = "chunked"
    elif dataset.is_virtual:
        storage = "virtual"
    elif dataset.external:
        storage = "external"
    else:
        storage = "contiguous" if dataset.id.get_offset() is not None else "compact or never written"
    # Attributes that are not what they should be stop a command only where the data set is asked for.
    meant = Numbers(dataset.dtype, UNPACKED, Missing())
    with suppress(UserError):
        meant = numbers_of(dataset, "") if number else meant
    missing = meant.missing
    return {
        "shape": list(dataset.shape or ()),
        "dtype": meant.dtype.name if number else str(dataset.dtype),
        "number": number,
        "byte_order": order if number and size > 1 else None,
        "storage": storage,
        "chunks": list(dataset.chunks) if dataset.chunks else None,
        "chunk_bytes": prod(dataset.chunks) * size if dataset.chunks else None,
        "filters": filters,
        "compressed": bool(set(filters) - NOT_COMPRESSING),
        "ratio": dataset.size * size / held if held and dataset.size else None,
        "resizable": bool(dataset.chunks) and dataset.maxshape != dataset.shape,
        "missing": [*missing.values, *([] if missing.unwritten is None else [missing.unwritten])],
        "valid": [missing.low, missing.high],
        "packed": list(meant.packing) if meant.packing != UNPACKED else None,
        "scale_of_dimension": bool(dataset.is_scale),
    }


def _taken_from(file: h5py.File, name: str) -> list[str]:
    """Paths of the other files that hold bytes of a data set, or what is wrong with them."""
    try:
        return list(sources(file, path_at(file, name))) if elsewhere(file, dataset_at(file, name)[0]) else []
    except MissingSource as missing:
        return [str(missing)]


def suggestion(report: dict) -> list[str]:
    """Lines that show a newcomer which options to give for a file of unknown layout."""
    usable = [entry for entry in report["datasets"] if entry["number"] and entry["shape"]]
    fields = [entry for entry in usable if not entry["scale_of_dimension"]] or usable
    labels = [entry for entry in fields if _LABELS.search(entry["name"].rsplit("/", 1)[-1])]
    inputs = [entry for entry in fields if entry not in labels]
    if not inputs:
        return ["No data set holds arrays of numbers that could be inputs."]
    largest = max(inputs, key=lambda entry: prod(entry["shape"]))
    alike = [e for e in inputs if (e["shape"], e["dtype"]) == (largest["shape"], largest["dtype"])]
    rows = [entry for entry in fields if entry["shape"][0] == largest["shape"][0] and entry not in alike]
    targets = [entry for entry in labels if entry in rows] or labels or rows
    names = [f"--inputs {' '.join(entry['name'] for entry in alike)}"]
    if targets:
        names.append(f"--targets {targets[0]['name']}")
    lines = [
        "Name the data sets to use, for example " + printable(" ".join(names)),
        f"This uses the first axis as the samples ({largest['shape'][0]} in this file); if the file is one sample, "
        "add --samples files.",
    ]
    if len(alike) > 1:
        lines.append("Several inputs are stacked as channels, on a new first axis of a sample.")
    elif len(largest["shape"]) > 3:
        lines.append("Channels are on the last axis of a sample; if they are on the first, add --channels first.")
    if not targets:
        lines.append("No data set looks like targets: prediction and statistics need none.")
    return lines


def _file_table(path: str, names) -> list[dict]:
    with open_hdf5(path) as file:
        return [entry(dataset_at(file, name)[0]) for name in names]
