"""JPEG shards in `hpc-train bench input`: the suite's reader of them, and the way that people read them with h5py."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from hpc_train.bench.input.other_readers import Batch, H5py
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.encoded_reader import EncodedReader
from hpc_train.data.reading.whole_images import WholeImageReader, are_whole
from hpc_train.errors import UserError


def open_images(catalogue: Catalogue, check: bool, how: str, open_file: Callable) -> WholeImageReader:
    """The reader of images that all have one size, (size, size).

    Raises:
        UserError: they have several, or are not square; or one is damaged.
    """
    (first,), _ = EncodedReader(catalogue).read([0])
    try:
        size = len(pixels(first))
    except (OSError, ValueError) as error:
        raise UserError(f"{catalogue.files[0]}: Pillow cannot decode its first image: {error}") from error
    reader = EncodedReader(catalogue.resized(size), check, how, open_file)
    if not are_whole(reader):
        _other_size(first)
    return WholeImageReader(reader, _other_size)


def pixels(image: bytes) -> np.ndarray:
    """uint8 (height, width, 3), decoded with Pillow, as PyTorch's data sets do."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def h5py_reader(catalogue: Catalogue, open_hdf5: Callable) -> H5py:
    """How people read such samples with h5py."""
    return (_EncodedH5py if catalogue.encoding else H5py)(catalogue, open_hdf5)


class _EncodedH5py(H5py):
    """Images one by one: the bytes of each with h5py, decoded with Pillow."""

    def read(self, indices: np.ndarray) -> Batch:
        """The batch of these samples."""
        files, rows = self._catalogue.locate(indices)
        images, targets = [], []
        for number, row in zip(files, rows, strict=True):
            file = self._kept(self._catalogue.files[number])
            start, stop = file["extents"][row : row + 2]
            images.append(pixels(file["inputs"][start:stop].tobytes()))
            targets.append(file["targets"][row])
        return np.stack(images), np.array(targets)


def _other_size(image: bytes):
    raise UserError(
        "--data holds images of different sizes, or such that are not square or not RGB or grey, which the other ways "
        "cannot put into one batch; measure them with `hpc-train bench decode`"
    )
