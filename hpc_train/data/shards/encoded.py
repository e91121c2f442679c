"""Write shards of images that stay encoded: JPEG files one after the other. FORMAT.md describes the file."""

import numpy as np
import xxhash

from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.sample_checks import check_arrays
from hpc_train.data.shards.compression import Storage
from hpc_train.data.shards.description import Description
from hpc_train.data.shards.format import ENCODED_VERSION, FORMAT, JPEG_END, JPEG_START
from hpc_train.data.shards.names import default_shards
from hpc_train.data.shards.spooled import PIECE, SpooledShard
from hpc_train.data.shards.streamed import StreamedSplit
from hpc_train.data.shards.writer import file_options, set_attributes, sync
from hpc_train.errors import UserError


class EncodedWriter(SpooledShard):
    """A context that writes one shard of encoded images, each the bytes of a whole file; targets: class numbers."""

    def __init__(self, path, target_dtype, attributes):
        super().__init__(path, target_dtype, attributes)
        self._extents, self._checksums = [0], []

    def _stored(self, image):
        self._extents.append(self._extents[-1] + len(image))
        self._checksums.append(xxhash.xxh3_64_intdigest(image))
        return image

    def _finish(self, spool, targets):
        size = self._extents[-1]
        with open_hdf5(self.path, "w", **file_options(Storage())) as file:
            inputs = file.create_dataset("inputs", (size,), np.uint8)
            for start in range(0, size, PIECE):
                stop = min(start + PIECE, size)
                inputs[start:stop] = np.frombuffer(spool.read(stop - start), np.uint8)
            file["extents"] = np.array(self._extents, "<i8")
            file["targets"] = targets
            whole = xxhash.xxh3_64_intdigest(targets)
            for name, values, run in (("inputs", self._checksums, 1), ("targets", [whole], len(targets))):
                file[f"checksums/{name}"] = np.array(values, "<u8")
                file[f"checksums/{name}"].attrs["rows"] = run
            known = {"format": FORMAT, "version": ENCODED_VERSION, "encoding": "jpeg", "channels": "last"}
            labels = {"target_min": int(targets.min()), "target_max": int(targets.max())}
            set_attributes(file, known | labels | self.attributes)
        sync(self.path)


def write_encoded_shards(directory, split, images, targets, *, classes, class_names=(), shards=None, source=""):
    """Write one split of JPEG files that are in memory as shards, atomically as `write_shards` does.

    The images are not decoded: `hpc-train verify` does that.

    Args:
        images: sequence of n byte strings, each a JPEG file.
        targets: (n,) whole numbers in [0, classes).
        shards: number of files, by default that of `default_shards`.

    Returns:
        The paths of the shards.

    Raises:
        UserError: for bad data, and for a folder that cannot be written.
    """
    described = Description(classes, class_names, source=source)
    where = described.where(split)
    targets = np.asarray(targets)
    check_arrays(where, {"inputs": np.empty((len(images), 1), np.uint8), "targets": targets}, classes, class_names)
    if targets.ndim != 1 or targets.dtype.kind not in "ui":
        raise UserError(f"{where}: targets are {targets.shape} {targets.dtype}; give one whole number for each image")
    for number, image in enumerate(images):
        if not (image.startswith(JPEG_START) and image.endswith(JPEG_END)):
            raise UserError(f"{where}: sample {number} is not a complete JPEG file; fix it or drop it")
    samples = len(images)
    if shards is None:
        shards = default_shards(samples, sum(map(len, images)) // samples)
    open_shard = lambda path, own: EncodedWriter(path, targets.dtype, own)  # noqa: E731
    with StreamedSplit(directory, split, samples, shards, open_shard, described.attributes()) as stream:
        stream.write(images, targets)
        stream.finish()
        return stream.publish()
