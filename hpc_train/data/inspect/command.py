"""`hpc-train inspect`: what a data set holds, how it is stored, and how the reader will read it."""

import json
from dataclasses import dataclass

from hpc_train.console import say
from hpc_train.data.options import DataOptions
from hpc_train.errors import UserError
from hpc_train.units import size

_MOST_SOURCES = 8


@dataclass(frozen=True)
class Inspect(DataOptions):
    """Show what a data set holds, how it is stored, how the reader will read it, and what would be faster.

    For HDF5 files of unknown layout, show the data sets in them and the options that name them.
    """

    split: str | None = None
    """Split to show; by default all splits of the data."""
    json: bool = False
    """Print the report as JSON."""


def run(options: Inspect) -> None:
    """Print the report; raises as `inspect` does."""
    from hpc_train.data.catalogue.layout import find_splits

    splits = [options.split] if options.split else find_splits(options.data) or ["train"]
    reports = [inspect(options, split) for split in splits]
    if options.json:
        say(json.dumps({"data": str(options.data), "splits": reports}, indent=2))
        return
    for report in reports:
        say("\n".join(_foreign_lines(report) if report["layout"] is None else _lines(report)))


def inspect(options: Inspect, split: str) -> dict:
    """Describe a split.

    Returns:
        Plain values, for JSON; `layout` is None for files of unknown layout.

    Raises:
        UserError: the data cannot be opened, or their files do not fit each other.
    """
    from hpc_train.data.inspect.storage_report import stored

    try:
        catalogue = options.catalogue(split)
    except UserError:
        report = _foreign_report(options, split)
        if report is None:
            raise
        return report
    datasets = stored(catalogue)
    report = {
        "split": split,
        "layout": catalogue.layout.name,
        "channels": {None: None, 0: "first"}.get(catalogue.channel_axis_of(catalogue.inputs[0]), "last"),
        "files": len(catalogue.files),
        "samples": catalogue.samples,
        "bytes": int(catalogue.sizes.sum()),
        "inputs": _side(catalogue.inputs),
        "targets": _side(catalogue.targets),
        "sample_weights": bool(catalogue.weights),
        "channel_names": list(catalogue.channel_names),
        "labelled": catalogue.labelled,
        "classes": catalogue.classes,
        "class_names": list(catalogue.class_names),
        "geometry": _geometry(catalogue),
        "fingerprint": catalogue.fingerprint,
        "encoding": catalogue.encoding or None,
        "image_bytes": round(int(catalogue.sizes.sum()) / catalogue.samples) if catalogue.encoding else None,
        "sources": list(catalogue.sources),
        "first_file": catalogue.files[0],
        "datasets": datasets,
    }
    from hpc_train.data.catalogue.axes import axes_note

    return report | {"axes": axes_note(catalogue), "advice": _advice(catalogue, datasets)}


def _geometry(catalogue) -> str | None:
    """What label maps show; None where the targets are no maps or nothing says it."""
    from hpc_train.data.fields.geometry import geometry_of

    maps = len(catalogue.targets) == 1 and len(catalogue.target_shape) == 2
    return (geometry_of(catalogue) or None) if maps and not catalogue.encoding else None


def _side(parts) -> dict | None:
    """Shape and dtype of the inputs or targets, by their names if they have any; None for no targets."""
    kinds = {part.name: {"shape": list(part.shape), "dtype": part.dtype.name} for part in parts}
    return kinds.get("", kinds) or None


def _foreign_report(options: Inspect, split: str) -> dict | None:
    """The description of files of unknown layout; None if the layout is known or no file can be read."""
    from hpc_train.data.catalogue.layout import find_files, recognise
    from hpc_train.data.inspect.storage_report import foreign

    if options.layout_of_files() is not None:
        return None
    files = find_files(options.data, split)
    report = foreign(files)
    if report is None:
        return None
    try:
        recognise(files[0])
    except UserError:
        return {"split": split, "layout": None, **report}
    return None


def _advice(catalogue, datasets: list[dict]) -> list[str]:
    # Data sets with the same advice share a line.
    about: dict[str, list[str]] = {}
    for entry in datasets:
        for text in _advice_on(entry, catalogue.layout.rows):
            about.setdefault(text, []).append(entry["name"])
    advice = [f"{', '.join(names)}: {text}" for text, names in about.items()]
    count, mean = len(catalogue.files), catalogue.sizes.mean()
    if count > 64 and mean < 2**18:
        advice.append(
            f"{count} files of {size(mean)}: opening them costs more than reading them; `hpc-train shard` makes a few "
            "large ones"
        )
    return advice


def _advice_on(entry: dict, rows: bool):
    chunks = entry["chunks"]
    if entry["packed"]:
        scale, offset = entry["packed"]
        yield (
            f"packed, and delivered as stored: value = stored * {scale:g} + {offset:g}; `hpc-train shard` stores the "
            "values, as float32"
        )
    if chunks and rows and chunks[0] > 1 and entry["filters"]:
        yield (
            f"chunks of {chunks[0]} samples, {'compressed' if entry['compressed'] else 'filtered'}: a whole-epoch "
            f"shuffle decodes {chunks[0]} samples to use one; use --shuffle blocks, or `hpc-train shard` without "
            "compression or with smaller chunks"
        )
    if "through h5py" in entry["reading"]:
        yield "read by one thread at a time; `hpc-train shard` stores it for parallel reading"
    if chunks and entry["chunks_a_sample"] > 16 and entry["chunk_bytes"] < 2**16:
        yield (
            f"a sample lies in {entry['chunks_a_sample']} chunks of {size(entry['chunk_bytes'])}; `hpc-train shard` "
            "makes fewer, larger ones"
        )
    if "gzip" in entry["filters"]:
        yield "gzip decodes slowly; `hpc-train shard --compression zstd`, or none, reads faster"


def _lines(report: dict) -> list[str]:
    inputs, targets = _side_text(report["inputs"]), _side_text(report["targets"])
    if report["targets"] is None:
        targets = "none, the inputs are the targets"
    elif report["sample_weights"]:
        targets += "; and sample weights"
    channels = f", channels {report['channels']}" if report["channels"] else ""
    names = f": {', '.join(report['class_names'])}" if report["class_names"] else ""
    decoded = ", once decoded (--image-size)" if report["encoding"] else ""
    lines = [
        f"{report['split']}: layout {report['layout']}, {report['samples']} samples in {_files(report)}, "
        f"{size(report['bytes'])}",
        f"  a sample: inputs {inputs}{channels}{decoded}; targets {targets}",
    ]
    lines += [f"  axes: {report['axes']}"] if report["axes"] else []
    if report["classes"]:
        lines.append(f"  classes: {report['classes']}{names}")
    elif report["labelled"]:
        lines.append("  classes: not known; give --classes")
    if report["geometry"]:
        lines.append(f"  geometry: {report['geometry']}")
    if report["channel_names"]:
        lines.append(f"  channels: {' '.join(report['channel_names'])}")
    if report["encoding"]:
        lines.append(
            f"  encoding: {report['encoding']}, {size(report['image_bytes'])} an image on average; training decodes a "
            "random part of each and resizes it, validation its centre; in threads, ahead of the step (--read-threads)"
        )
    lines += _source_lines(report["sources"])
    lines.append(f"  in {report['first_file']}:")
    for entry in report["datasets"]:
        lines += [f"    {entry['name']}: {_storage(entry)}", f"      is read: {entry['reading']}"]
        if entry["differs"]:
            lines.append(f"      stored differently in {', '.join(entry['differs'])}")
    return lines + [f"  advice: {text}" for text in report["advice"]]


def _source_lines(sources: list[str]) -> list[str]:
    more = len(sources) - _MOST_SOURCES
    shown = ", ".join(sources[:_MOST_SOURCES]) + (f" and {more} more" if more > 0 else "")
    return [f"  takes numbers from other files: {shown}"] if sources else []


def _side_text(side: dict | None) -> str:
    named = {"": side} if side and "dtype" in side else side or {}
    return ", ".join(f"{name} {tuple(part['shape'])} {part['dtype']}".strip() for name, part in named.items())


def _storage(entry: dict) -> str:
    parts = [f"{tuple(entry['shape'])} {entry['dtype']}"]
    if entry["byte_order"]:
        parts.append(f"{entry['byte_order']} endian")
    if entry["chunks"]:
        parts.append(f"chunks {tuple(entry['chunks'])} of {size(entry['chunk_bytes'])}")
        parts.append(" + ".join(entry["filters"]) or "no filters")
    else:
        parts.append(entry["storage"])
    if entry["ratio"] is not None and entry["filters"]:
        parts.append(f"{entry['ratio']:.2f} times smaller than its values")
    if entry["resizable"]:
        parts.append("resizable")
    if entry["missing"]:
        parts.append(f"missing {' '.join(f'{value:g}' for value in entry['missing'])}")
    ends = [f"{word} {end:g}" for word, end in zip(("from", "to"), entry["valid"], strict=True) if end is not None]
    if ends:
        parts.append(f"valid {' '.join(ends)}")
    return ", ".join(parts)


def _foreign_lines(report: dict) -> list[str]:
    from hpc_train.data.inspect.storage_report import suggestion
    from hpc_train.names import printable

    names = [printable(entry["name"]) for entry in report["datasets"]]
    width = max(map(len, names))
    lines = [f"{report['split']}: {_files(report)} of unknown layout; {report['file']} holds"]
    for name, entry in zip(names, report["datasets"], strict=True):
        packed = " (packed: scale_factor, add_offset)" if entry["packed"] else ""
        lines.append(f"  {name:{width}}  {_storage(entry)}{packed}")
        lines += _source_lines(entry["sources"])
    return [*lines, *suggestion(report)]


def _files(report: dict) -> str:
    return f"{report['files']} file{'s' * (report['files'] != 1)}"
