"""Shards of images that stay encoded: JPEG files one after the other. FORMAT.md says what is in the file."""

import tempfile
from pathlib import Path

import numpy as np
import xxhash

from hpc_train.data.checks import check_arrays
from hpc_train.data.filters import MIB, Storage
from hpc_train.data.hdf5 import open_hdf5
from hpc_train.data.shard_writer import ENCODED_VERSION, FORMAT, file_options, set_attributes, sync
from hpc_train.data.shards import default_shards
from hpc_train.data.streamed_split import StreamedSplit
from hpc_train.errors import UserError

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PIECE = 16 * MIB


class EncodedWriter:
    """A context that writes one shard of encoded images, which come in pieces, and keeps none of them in memory.

    path: file to be made; target_dtype: u or i, stored little endian; attributes: those of the format that are known
    beforehand.

    Leaving the context without an error writes the file and brings it to the disk; after an error there is no file.
    Raises OSError and RuntimeError of h5py.
    """

    def __init__(self, path, target_dtype, attributes):
        self.path, self.attributes = Path(path), attributes
        self._dtype = np.dtype(target_dtype).newbyteorder("<")
        # The size of a contiguous data set is fixed when it is made, so the bytes wait in a file without a name.
        self._spool = tempfile.TemporaryFile(dir=self.path.parent, buffering=MIB)  # noqa: SIM115 (closed by __exit__)
        self._extents, self._checksums, self._targets = [0], [], []

    def __enter__(self):
        return self

    def write(self, images, targets):
        """Append samples: images, a sequence of b byte strings, each a whole file; targets (b,) class numbers."""
        if len(images) != len(targets):
            raise ValueError(f"{len(images)} images but {len(targets)} targets")
        for image in images:
            self._spool.write(image)
            self._extents.append(self._extents[-1] + len(image))
            self._checksums.append(xxhash.xxh3_64_intdigest(image))
        self._targets.append(np.array(targets, self._dtype))

    def __exit__(self, kind, error, traceback):
        with self._spool:
            if kind is None:
                self._finish()

    def _finish(self):
        rows = len(self._checksums)
        if rows == 0:
            raise ValueError(f"{self.path}: no samples were written")
        targets, size = np.concatenate(self._targets), self._extents[-1]
        with open_hdf5(self.path, "w", **file_options(Storage())) as file:
            inputs = file.create_dataset("inputs", (size,), np.uint8)
            self._spool.seek(0)
            for start in range(0, size, _PIECE):
                stop = min(start + _PIECE, size)
                inputs[start:stop] = np.frombuffer(self._spool.read(stop - start), np.uint8)
            file["extents"] = np.array(self._extents, "<i8")
            file["targets"] = targets
            whole = xxhash.xxh3_64_intdigest(targets)
            for name, values, run in (("inputs", self._checksums, 1), ("targets", [whole], rows)):
                file[f"checksums/{name}"] = np.array(values, "<u8")
                file[f"checksums/{name}"].attrs["rows"] = run
            known = {"format": FORMAT, "version": ENCODED_VERSION, "encoding": "jpeg", "channels": "last"}
            labels = {"target_min": int(targets.min()), "target_max": int(targets.max())}
            set_attributes(file, known | labels | self.attributes)
        sync(self.path)


def write_encoded_shards(directory, split, images, targets, *, classes, class_names=(), shards=None, source=""):
    """Write one split of JPEG files in memory as shards and return their paths.

    images: sequence of n byte strings, each a JPEG file; targets: (n,) whole numbers in [0, classes); shards: number of
    files, by default those of `default_shards`. Atomic as `write_shards`. Raises UserError for bad data and for a
    folder that cannot be written. The images are not decoded: `hpc-train verify` does that.
    """
    where = f"{split} data" + (f" from {source}" if source else "")
    targets = np.asarray(targets)
    check_arrays(where, np.empty((len(images), 1), np.uint8), targets, classes, class_names)
    if targets.ndim != 1 or targets.dtype.kind not in "ui":
        raise UserError(f"{where}: targets are {targets.shape} {targets.dtype}; give one whole number for each image")
    for number, image in enumerate(images):
        if not (image.startswith(JPEG_START) and image.endswith(JPEG_END)):
            raise UserError(f"{where}: sample {number} is no whole JPEG file; mend or drop it")
    samples = len(images)
    if shards is None:
        shards = default_shards(samples, sum(map(len, images)) // samples)
    attributes = {
        "classes": classes,
        "class_names": list(class_names),
        "source": " ".join(source.split()),
    }
    open_shard = lambda path, own: EncodedWriter(path, targets.dtype, own)  # noqa: E731
    with StreamedSplit(directory, split, samples, shards, open_shard, attributes) as stream:
        stream.write(images, targets)
        stream.finish()
        return stream.publish()
