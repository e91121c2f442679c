"""The readers of files: a function from a path for each, and small whole files to begin from."""

import contextlib
import gzip
import io
import json
import os
import struct
import tarfile
import tempfile

import numpy as np
from own_readers import OWN_READERS
from PIL import Image

_VALUES, _LABELS = np.arange(96, dtype="<f4").reshape(12, 8), np.arange(12, dtype="u1")


# Without a checksum: bytes that were damaged may become other numbers in another decoder.
_UNCHECKED = {"lzf", "zstd", "lz4", "blosc", "blosc2", "bitshuffle"}
_FILTERS = {"gzip", "shuffle", "fletcher32", "bzip2", *_UNCHECKED}


def hdf5(path):
    """Our reader gives the bytes that h5py gives, or refuses; without a checksum, of whole chunks only."""
    import h5py

    from hpc_train.data.catalogue import Catalogue
    from hpc_train.data.catalogue.layout import Layout
    from hpc_train.data.hdf5.contents import UNREADABLE
    from hpc_train.data.hdf5.filters import filter_names, load_plugins
    from hpc_train.data.hdf5.sources import other_files
    from hpc_train.data.inspect.storage_report import foreign
    from hpc_train.data.reading.reader import Reader

    load_plugins()
    foreign([path])
    with contextlib.suppress(*UNREADABLE):
        list(other_files(path))
    catalogue = Catalogue.open(path, None, Layout("named", ("x",), ("y",), rows=True, channels="last"))
    count = min(catalogue.samples, 1 + 2**22 // max(1, catalogue.sample_bytes))
    reader = Reader(catalogue, check=False)
    try:
        ours = reader.read(np.arange(count))
    finally:
        reader.close()
    with h5py.File(path, locking=False) as file:
        if not all(map(_agrees_with_itself, (file["x"], file["y"]))):
            return
        # Of bytes that are not theirs, some plugins make other numbers each time.
        if not {name for dataset in (file["x"], file["y"]) for name in filter_names(dataset)} <= _FILTERS:
            return
        for name, values in zip("xy", ours, strict=True):
            dataset, whole = file[name], _VALUES if name == "x" else _LABELS
            if _UNCHECKED & set(filter_names(dataset)):
                # Rows that h5py reads as they were written.
                known = range(min(count, len(whole)) if dataset.dtype == whole.dtype else 0)
                rows = [row for row in known if _equal(whole[row], _row(dataset, row))]
                assert all(_equal(values[row], whole[row]) for row in rows)
                continue
            try:
                theirs = dataset[:count]
            except OSError:
                # HDF5 may refuse for a part of a stream that we do not need: then nothing else may have changed.
                theirs = whole[:count]
            assert _equal(values, theirs.astype(theirs.dtype.newbyteorder("=")))


def _row(dataset, row):
    try:
        return dataset[row]
    except OSError:
        return None


def _equal(values, others):
    return others is not None and values.tobytes() == others.tobytes()


def _agrees_with_itself(dataset):
    """Whether HDF5 finds each chunk that it lists: the index of old files has no checksum."""
    listed = []
    if dataset.chunks:
        dataset.id.chunk_iter(listed.append)
    try:
        for each in listed:
            dataset.id.read_direct_chunk(each.chunk_offset)
    except (RuntimeError, ValueError, OSError):
        return False
    return True


def h5py_alone(path):
    """What h5py makes of the same file, to tell HDF5's own crashes from ours."""
    import h5py
    import hdf5plugin  # noqa: F401

    with contextlib.suppress(Exception), h5py.File(path, locking=False) as file:
        for name in "xy":
            dataset = file[name]
            if dataset.chunks:
                dataset.id.chunk_iter(lambda info: None)
            dataset[: 2**16]


def image(path):
    """Images as they are prepared, and JPEG files as they are verified."""
    from hpc_train.data.verify.scan_images import problem_of
    from hpc_train.prepare.images.files import BadImage, Treatment, limit_pixels, prepare_image

    limit_pixels(2**26)
    with open(path, "rb") as file:
        problem_of(file.read())
    for treatment in (Treatment(min_side=1), Treatment(size=4, min_side=1)):
        with contextlib.suppress(BadImage):
            prepare_image(path, treatment)


def jpeg_in_training(path):
    """A JPEG file of a shard in TensorFlow's decoder."""
    import tensorflow as tf

    from hpc_train.data.tensors.jpeg import validation_transform

    with open(path, "rb") as file, contextlib.suppress(tf.errors.OpError):
        validation_transform(8)(tf.constant(file.read()))


def idx(path):
    from hpc_train.prepare.sources import read_idx

    read_idx(path, 3)


def npz(path):
    from hpc_train.prepare import sources

    sources.npz(path, test_fraction=0.5)


def npy(path):
    from hpc_train.prepare.arrays.command import Arrays
    from hpc_train.prepare.arrays.samples import read_splits

    options = Arrays(inputs=path, targets=path, output=None, test_fraction=0)
    for pair in read_splits(options, {"train": (path, path)}).values():
        for rows in pair:
            rows[0:4]


def tar(path):
    from hpc_train.prepare.cifar import cifar

    cifar("cifar10", path)


def _table(path, source, options):
    from hpc_train.prepare.tables.table import Table

    options.check()
    with Table([path], source, options) as table:
        table.read()


def csv(path):
    from hpc_train.prepare.tables.command import Csv
    from hpc_train.prepare.tables.files import CsvFiles

    _table(path, CsvFiles(","), Csv(files=(path,), output=_here(path), target=(("y",),), test_fraction=0.5))


def parquet(path):
    from hpc_train.prepare.tables.command import Parquet
    from hpc_train.prepare.tables.files import ParquetFiles

    _table(path, ParquetFiles(), Parquet(files=(path,), output=_here(path), target=(("y",),), test_fraction=0.5))


def tracks(path):
    from hpc_train.prepare.storm_tracks.tracks import Selection, read_tracks

    selection = Selection(0, (), (), 1e9)
    found = read_tracks(path, selection)
    found.storms(np.array(["2000-01-01T03"], "datetime64[s]"), selection)


def fields(path):
    from hpc_train.prepare.storm_tracks.fields import FieldFile

    with FieldFile(path, ["u"]) as file:
        file.read(0)


def netcdf_alone(path):
    """What netCDF4 makes of the same file, to tell the library's own crashes from ours."""
    import netCDF4

    with contextlib.suppress(Exception), netCDF4.Dataset(path) as file:
        for variable in file.variables.values():
            variable[:1]


def timeline(path):
    from hpc_train.timeline.intervals import collectives
    from hpc_train.timeline.summary import summarise

    json.dumps(summarise(path, 5, 0))
    collectives(path, "g")


def lists(path):
    from hpc_train.errors import UserError
    from hpc_train.prepare.images.lists import class_lines, list_lines

    with contextlib.suppress(UserError):
        class_lines(path)
    list_lines("/", path)


def _here(path):
    from pathlib import Path

    return Path(path).parent


def _hdf5_files():
    import h5py
    import hdf5plugin

    kinds = {
        "contiguous": {},
        "chunks": {"chunks": (5, 3)},
        "gzip": {"chunks": (5, 8), "compression": "gzip", "shuffle": True, "fletcher32": True},
        "lzf": {"chunks": (4, 8), "compression": "lzf"},
        "zstd": {"chunks": (4, 8), **hdf5plugin.Zstd()},
        "lz4": {"chunks": (4, 8), **hdf5plugin.LZ4()},
        "blosc": {"chunks": (4, 8), **hdf5plugin.Blosc()},
        "blosc2": {"chunks": (4, 8), **hdf5plugin.Blosc2()},
        "bitshuffle": {"chunks": (4, 8), **hdf5plugin.Bitshuffle(cname="lz4")},
        "bzip2": {"chunks": (4, 8), **hdf5plugin.BZip2()},
        "growing": {"chunks": (2, 8), "maxshape": (None, 8)},
        "both": {"chunks": (2, 4), "maxshape": (None, None), "compression": "gzip"},
    }
    for libver in ("earliest", "latest"):
        for options in kinds.values():
            raw = io.BytesIO()
            with h5py.File(raw, "w", libver=libver) as file:
                file.create_dataset("x", data=_VALUES, **options)
                file.create_dataset("y", data=_LABELS)
            yield raw.getvalue()


def _images():
    picture = Image.fromarray(np.arange(16 * 20 * 3, dtype=np.uint8).reshape(16, 20, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (
        ("JPEG", {"exif": exif}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("TIFF", {}), ("BMP", {}),
        ("PPM", {}), ("WEBP", {}),
    ):  # fmt: skip
        raw = io.BytesIO()
        picture.save(raw, name, **options)
        yield raw.getvalue()
    for mode in ("I;16", "P", "LA", "1"):
        raw = io.BytesIO()
        Image.new(mode, (9, 8)).save(raw, "PNG")
        yield raw.getvalue()


def _jpegs():
    return list(_images())[:2]


def _idx_files():
    raw = struct.pack(">BBBB3I", 0, 0, 8, 3, 4, 3, 2) + bytes(range(24))
    yield from (raw, gzip.compress(raw, mtime=0))


def _npz_files():
    arrays = {"x_train": np.arange(24, dtype="f8").reshape(4, 3, 2), "y_train": np.arange(4) % 2}
    for save in (np.savez, np.savez_compressed):
        raw = io.BytesIO()
        save(raw, **arrays)
        yield raw.getvalue()


def _npy_files():
    for array in (np.arange(24, dtype="f4").reshape(4, 3, 2), np.asfortranarray(np.ones((3, 2), ">i2"))):
        raw = io.BytesIO()
        np.save(raw, array)
        yield raw.getvalue()


def _tar_files():
    import pickle

    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    batch = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [3]}, 2)
    for kind in ("w", "w:gz"):
        for ending, content in (("", batch), (".bin", bytes(3073))):
            raw = io.BytesIO()
            with tarfile.open(fileobj=raw, mode=kind) as archive:
                for name in names:
                    member = tarfile.TarInfo(f"cifar-10/{name}{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
            yield raw.getvalue()


def _csv_files():
    raw = b'a,b,y\n1,2.5,3\n-4,"5",0.5\n7,8e3,9\n'
    yield from (raw, raw.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + raw)


def _parquet_files():
    import pyarrow as pa
    import pyarrow.parquet as pq

    for codec in ("none", "snappy", "zstd"):
        raw = io.BytesIO()
        pq.write_table(pa.table({"a": [1, 2, 3], "y": [0.5, 1.5, 2.5]}), raw, compression=codec)
        yield raw.getvalue()


def _track_files():
    raw = b"SID,ISO_TIME,LAT,LON,USA_WIND,USA_STATUS,BASIN,NAME,TRACK_TYPE\n ,,degrees_north,degrees_east,kts,,,,\n"
    for hour in (0, 6, 12):
        raw += f'1999A,2000-01-01 {hour:02}:00:00,{10 + hour}.5,{-60 - hour},{40 + hour},TS,NA,"BOB",main\n'.encode()
    yield from (raw, gzip.compress(raw, mtime=0))


def _field_files():
    import netCDF4

    for kind in ("NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4"):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.nc")
            with netCDF4.Dataset(path, "w", format=kind) as file:
                for name, length in (("time", None), ("lat", 3), ("lon", 4)):
                    file.createDimension(name, length)
                for name, units in (
                    ("time", "hours since 2000-01-01"),
                    ("lat", "degrees_north"),
                    ("lon", "degrees_east"),
                ):
                    file.createVariable(name, "f8", (name,)).units = units
                file["lat"][:], file["lon"][:] = [1, 2, 3], [0, 1, 2, 3]
                file.createVariable("u", "f4", ("time", "lat", "lon"))[:2] = np.ones((2, 3, 4))
                file["time"][:] = [0, 6]
            with open(path, "rb") as file:
                yield file.read()


def _timelines():
    events = [
        {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "grads"}},
        {"name": "HOROVOD_START", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros": 10**15}},
    ]
    text = "[\n" + ",\n".join(map(json.dumps, events)) + ",\n"
    text += '{"ph": "B", "name": "NEGOTIATE_ALLREDUCE", "ts": 10, "pid": 1},'
    text += '{"ph": "X", "name": "1", "ts": 12, "pid": 1, "dur": 0},'
    text += '{"ph": "E", "ts": 20, "pid": 1},{"ph": "B", "name": "ALLREDUCE", "ts": 20, "pid": 1},'
    text += '{"ph": "B", "name": "MPI_ALLREDUCE", "ts": 21, "pid": 1},{"ph": "E", "ts": 25, "pid": 1},'
    text += '{"ph": "E", "ts": 30, "pid": 1, "args": {"dtype": "int32", "shape": "[8]"}}]'
    yield text.encode()
    yield text.replace('"pid": 1,', '"pid": 1 ,').encode()


def _lists():
    yield b"train/a b.jpg 3\n./c.jpg 12\n\nd.jpg\tcat\n"
    yield "ä.jpg 1\n".encode("latin1") + b"b.jpg 2\r\n"


# {name: (reader, whole files, the library's own part)}
READERS = {
    "hdf5": (hdf5, _hdf5_files, h5py_alone),
    "image": (image, _images, None),
    "jpeg": (jpeg_in_training, _jpegs, None),
    "idx": (idx, _idx_files, None),
    "npz": (npz, _npz_files, None),
    "npy": (npy, _npy_files, None),
    "tar": (tar, _tar_files, None),
    "csv": (csv, _csv_files, None),
    "parquet": (parquet, _parquet_files, None),
    "tracks": (tracks, _track_files, None),
    "fields": (fields, _field_files, netcdf_alone),
    "timeline": (timeline, _timelines, None),
    "lists": (lists, _lists, None),
    **OWN_READERS,
}
