"""The suite's shard format, version 1: a split of a data set as HDF5 files `SPLIT-00000-of-00004.h5`.

Each file holds the data sets `inputs` (n, ...) and `targets` (n,), contiguous, uncompressed and little
endian, so that a reader can take rows straight from the file. Root attributes:

    format, version         "hpc-train shard", 1
    split, shard, shards    "train" or "test"; this file's number and the number of files
    first, total            index in the whole split of this file's first row; rows of the whole split
    classes, class_names    number of classes; their names (may be empty)
    target_min, target_max  smallest and largest label in this file
    source                  one line on where the data came from
    fingerprint             hash of the whole split, equal in all its shards (other writers may leave it out)
"""

import os
import re
import shutil
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import h5py
import numpy as np

from hpc_train.errors import UserError

FORMAT = "hpc-train shard"
VERSION = 1
_FILE_NAME = re.compile(r"(?P<split>[a-z][a-z0-9_]*)-(?P<shard>\d{5,})-of-(?P<shards>\d{5,})\.h5")
_TARGET_BYTES = 256 * 2**20
_LEAST_SHARDS = 4
_CHUNK_BYTES = 64 * 2**20


def shard_name(split, shard, shards):
    """File name of shard number `shard` of `shards`."""
    return f"{split}-{shard:05d}-of-{shards:05d}.h5"


def parse_shard_name(name):
    """(split, shard, shards) of a shard's file name, or None when it is no such name."""
    match = _FILE_NAME.fullmatch(name)
    return match and (match["split"], int(match["shard"]), int(match["shards"]))


def default_shards(samples, sample_bytes):
    """Number of shards: about 256 MiB each, but at least 4, so that several ranks can stage them at once."""
    return min(samples, max(_LEAST_SHARDS, -(-samples * sample_bytes // _TARGET_BYTES)))


def open_hdf5(path, mode="r", **options):
    """h5py.File without file locking, where the HDF5 library can do without it.

    Locks fail on read-only and on many parallel file systems, and shards are never changed in place.
    """
    version = h5py.version.hdf5_version_tuple
    if version >= (1, 12, 1) or (1, 10, 7) <= version < (1, 11):
        options["locking"] = False
    return h5py.File(path, mode, **options)


def reason(error):
    """One line on why a file operation failed; HDF5's own messages run over several."""
    code = getattr(error, "errno", None)
    return os.strerror(code) if code else " ".join(str(error).split())


def first_not_finite(inputs):
    """Number of the first row that holds NaN or infinity, or None. inputs: (n, ...), any numeric dtype."""
    if inputs.dtype.kind != "f":
        return None
    # One sum finds out without a temporary array; only a sum that is not finite needs the slow look.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(inputs.sum(dtype=np.promote_types(inputs.dtype, np.float32))):
            return None
    finite = np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
    return None if finite.all() else int(finite.argmin())


def first_outside(targets, classes):
    """Number of the first row whose label is not in [0, classes), or None. targets: integers (n,)."""
    outside = (targets < 0) | (targets >= classes)
    return int(outside.argmax()) if outside.any() else None


def write_shards(directory, split, inputs, targets, *, classes, class_names=(), shards=None, source=""):
    """Write one split as shards and return their paths.

    inputs: (n, ...) unsigned, signed or floating; targets: (n,) integers in [0, classes); shards: number of
    files, by default those of `default_shards`. All shards are written under temporary names, then renamed;
    only then are shards of the same split from an earlier call with another number of files removed.
    Raises UserError for bad data and for a folder that cannot be written; then no shard has changed, unless
    the renaming itself failed.
    """
    if parse_shard_name(shard_name(split, 0, 1)) is None:
        raise ValueError(f"{split!r} is no name for a split")
    directory = Path(directory)
    where = f"{split} data" + (f" from {source}" if source else "")
    inputs, targets = np.asanyarray(inputs), np.asanyarray(targets)
    _check_arrays(where, inputs, targets, classes, class_names)
    samples = len(inputs)
    if shards is None:
        shards = default_shards(samples, inputs.nbytes // samples)
    if not 1 <= shards <= samples:
        raise UserError(f"{where}: {samples} samples do not fill {shards} shards; use 1 to {samples}")
    shared = {
        "format": FORMAT,
        "version": VERSION,
        "split": split,
        "shards": shards,
        "total": samples,
        "classes": classes,
        "source": " ".join(source.split()),
        "fingerprint": _fingerprint(inputs, targets),
    }
    edges = [shard * samples // shards for shard in range(shards + 1)]
    paths = [directory / shard_name(split, shard, shards) for shard in range(shards)]
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _check_space(directory, inputs.nbytes + targets.nbytes)
        for shard, path in enumerate(paths):
            rows = slice(edges[shard], edges[shard + 1])
            attributes = shared | {"shard": shard, "first": rows.start}
            _write_shard(_temporary(path), inputs[rows], targets[rows], attributes, class_names)
        for path in paths:
            os.replace(_temporary(path), path)
        _remove_stale(directory, split, shards)
        _sync(directory)
    # h5py raises RuntimeError where HDF5 cannot flush a file.
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be written ({reason(error)}); free space or choose another output folder"
        ) from error
    finally:
        for path in paths:
            with suppress(OSError):
                _temporary(path).unlink()
    return paths


def _check_arrays(where, inputs, targets, classes, class_names):
    if inputs.ndim < 1 or targets.ndim != 1:
        raise UserError(
            f"{where}: inputs of shape {inputs.shape} and targets of shape {targets.shape} are not "
            "(n, ...) and (n,); reshape them"
        )
    if len(inputs) != len(targets):
        raise UserError(
            f"{where}: {len(inputs)} inputs but {len(targets)} targets; give one target for each input"
        )
    if inputs.size == 0:
        raise UserError(f"{where}: no samples (inputs have shape {inputs.shape}); give at least one")
    if inputs.dtype.kind not in "uif" or inputs.dtype.itemsize > 8:
        raise UserError(f"{where}: inputs have dtype {inputs.dtype}; convert them to uint8 or float32")
    if targets.dtype.kind not in "ui":
        raise UserError(f"{where}: targets have dtype {targets.dtype}; convert them to integer class numbers")
    if class_names and len(class_names) != classes:
        raise UserError(f"{where}: {len(class_names)} class names for {classes} classes; give one a class")
    row = first_outside(targets, classes)
    if row is not None:
        raise UserError(
            f"{where}: sample {row} has label {targets[row]}, outside the {classes} classes "
            f"(0 to {classes - 1}); mend the label or the number of classes"
        )
    for start, part in _chunks(inputs):
        row = first_not_finite(part)
        if row is not None:
            raise UserError(f"{where}: sample {start + row} holds NaN or infinity; mend or drop it")


def _chunks(array):
    rows = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _fingerprint(inputs, targets):
    digest = blake2b(f"{inputs.dtype} {inputs.shape} {targets.dtype}".encode(), digest_size=16)
    for array in (inputs, targets):
        for _, part in _chunks(array):
            digest.update(np.ascontiguousarray(part))
    return digest.hexdigest()


def _check_space(directory, needed):
    # Asked beforehand, since HDF5 may notice a full disk only when it closes the file.
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise UserError(
            f"{directory}: the shards need {needed / 2**20:.0f} MiB but {free / 2**20:.0f} MiB are free; "
            "free space or choose another output folder"
        )


def _write_shard(path, inputs, targets, attributes, class_names):
    # Page-aligned data can also be read past the page cache. In the file format of HDF5 1.8, and with strings
    # of fixed length, all metadata have checksums: in older ones damage can make HDF5 loop for ever.
    options = {"libver": ("v108", "v108"), "alignment_threshold": 4096, "alignment_interval": 4096}
    with open_hdf5(path, "w", **options) as file:
        for name, value in attributes.items():
            file.attrs[name] = _fixed_length(value) if isinstance(value, str) else value
        file.attrs["class_names"] = _fixed_length(list(class_names))
        file.attrs["target_min"] = targets.min()
        file.attrs["target_max"] = targets.max()
        for name, array in (("inputs", inputs), ("targets", targets)):
            file.create_dataset(name, data=array, dtype=array.dtype.newbyteorder("<"))
    _sync(path)


def _fixed_length(text):
    encoded = np.char.encode(np.array(text, dtype=str), "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))


def _temporary(path):
    return path.with_name(f".{path.name}.tmp")


def _remove_stale(directory, split, shards):
    for path in directory.iterdir():
        name = path.name
        temporary = name.startswith(".") and name.endswith(".tmp")
        parsed = parse_shard_name(name[1:-4] if temporary else name)
        if parsed and parsed[0] == split and (temporary or parsed[2] != shards):
            path.unlink()


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
