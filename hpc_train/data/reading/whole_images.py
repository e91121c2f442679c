"""The reader of JPEG images that have the wanted size: its threads decode them, each into its place in a batch."""

from collections.abc import Callable

import imagecodecs
import numpy as np

from hpc_train.data.reading.encoded_reader import EncodedArray, EncodedReader, misshapen
from hpc_train.data.reading.reader import Reader

# Images that tell whether all have one size.
_LOOKED_AT = 16


class WholeImageReader(EncodedReader):
    """Reads encoded images as uint8 (b, size, size, 3), as `Reader` reads arrays.

    Args:
        reader: of the files; the size is that of its catalogue's input_shape.
        other: makes a uint8 array (size, size, 3) of an image of another size or kind; None where that cannot be.
    """

    def __init__(self, reader: EncodedReader, other: Callable[[bytes], np.ndarray | None]):
        super().__init__(reader.catalogue, reader.check, reader.how, reader.open_storage)
        self._other = other

    @property
    def sample_bytes(self) -> int:
        """Bytes of a decoded image and its target."""
        return self.catalogue.sample_bytes

    def empty(self, samples: int, allocate: Callable) -> tuple[np.ndarray, ...]:
        """Arrays for this many samples, made by allocate(shape, dtype)."""
        return Reader.empty(self, samples, allocate)

    def _array(self, *arguments) -> EncodedArray:
        return _WholeImages(self._other, *arguments)


class _WholeImages(EncodedArray):
    quick, gathered = False, 32

    def __init__(self, other: Callable[[bytes], np.ndarray | None], *arguments):
        super().__init__(*arguments)
        self._other = other

    def put(self, image: bytes, row: int, out: np.ndarray) -> None:
        (out,) = out
        if not decode(image, out):
            if (found := self._other(image)) is None:
                raise self.damaged(row, "cannot be decoded as JPEG")
            out[...] = found


def decode(image: bytes, out: np.ndarray) -> bool:
    """Decode a JPEG file into a uint8 array (height, width, 3), if that is its size.

    Returns:
        Whether it has been decoded. If not, `out` may have changed.
    """
    if misshapen(image):
        # The library would only warn of a file that is cut, and fill it up.
        return False
    try:
        imagecodecs.jpeg8_decode(image, outcolorspace="RGB", out=out)
    except (ValueError, imagecodecs.Jpeg8Error):
        return False
    return True


def are_whole(reader: EncodedReader) -> bool:
    """Whether images have the size of the catalogue's input_shape, as far as a few of them tell.

    Raises:
        UserError: naming file and row, if one of these is damaged.
    """
    catalogue = reader.catalogue
    some = np.unique(np.linspace(0, catalogue.samples - 1, _LOOKED_AT).astype(np.int64))
    out = np.empty(catalogue.input_shape, np.uint8)
    images, _ = reader.read(some)
    return all(decode(image, out) for image in images)
