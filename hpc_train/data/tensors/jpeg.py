"""From JPEG files to images of one size: crop them for training and validation, with TensorFlow's operations."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from hpc_train.data.reading.encoded_reader import EncodedReader, damaged
from hpc_train.data.reading.whole_images import decode
from hpc_train.data.shards.format import MOST_PIXELS
from hpc_train.errors import UserError

# Szegedy et al. 2015 (Going deeper with convolutions), section 6: share of the area, and width / height.
LEAST_AREA, MOST_ASPECT = 0.08, 4 / 3
TRIES = 10
# Side of the centre crop relative to the shorter side: 224 of 256 (Goyal et al. 2017, section 5.1).
CENTRE = 224 / 256
# As in other decoders, such as Pillow: TensorFlow's default is off by one grey level on average, and no faster.
_DCT = "INTEGER_ACCURATE"
# Factors by which a JPEG can be shrunk while it is decoded.
_RATIOS = (1, 2, 4, 8)


def validation_transform(size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from a JPEG file, a string, to its centre, uint8 (size, size, 3).

    The result is as if the shorter side were resized to 256/224 * size and the centre cut out; only that part is
    decoded, then resized bilinearly. An image of size x size is used whole.
    """

    def transform(jpeg: tf.Tensor) -> tf.Tensor:
        return _decode(jpeg, centre_window(_shape(jpeg), size), size)

    return transform


def training_transform(size: int, crop: str = "inception") -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A function from a JPEG file and a seed, int64 (2,), to a part of the image, uint8 (size, size, 3).

    The same file and seed give the same image everywhere.

    Args:
        size: side of the image in pixels.
        crop: "inception": a random part (`random_window`), mirrored half of the time; "centre": as for validation.
    """
    if crop == "centre":
        centre = validation_transform(size)
        return lambda jpeg, seed: centre(jpeg)

    def transform(jpeg: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws = tf.random.stateless_uniform([4 * TRIES + 1], seed, alg="philox")
        image = _decode(jpeg, random_window(_shape(jpeg), draws[1:]), size)
        return tf.cond(draws[0] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)

    return transform


def centre_window(shape: tf.Tensor, size: int) -> tf.Tensor:
    """(y, x, height, width), int32, of the square that validation uses of an image of shape (height, width)."""
    side = tf.cast(tf.round(tf.cast(tf.reduce_min(shape), tf.float32) * CENTRE), tf.int32)
    corner = (shape - side) // 2
    window = tf.stack([corner[0], corner[1], side, side])
    return tf.where(tf.reduce_all(shape == size), tf.stack([0, 0, size, size]), window)


def random_window(shape: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """(y, x, height, width), int32, of a random part of an image of shape (height, width).

    Its area is between 8 and 100 % of the image's and its width / height between 3/4 and 4/3 (Szegedy et al. 2015,
    section 6). The logarithm of the latter is uniform, so that wide and high parts are equally frequent. The part is
    the first of ten tries that fits into the image; else the largest square in its middle, as in the program that
    Goyal et al. 2017 (section 5.1) follow.

    Args:
        shape: (height, width) of the image.
        draws: float32 (40,), uniform in [0, 1): area, aspect, y and x of each try.
    """
    area, aspect, y, x = tf.unstack(tf.reshape(draws, [TRIES, 4]), axis=1)
    size = tf.cast(shape, tf.float32)
    area = (LEAST_AREA + (1 - LEAST_AREA) * area) * size[0] * size[1]
    aspect = tf.exp((2 * aspect - 1) * np.float32(np.log(MOST_ASPECT)))
    height = tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32)
    width = tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32)
    fits = (height <= shape[0]) & (width <= shape[1]) & (height > 0) & (width > 0)
    tries = tf.stack([_place(y, shape[0] - height), _place(x, shape[1] - width), height, width], axis=1)
    side = tf.reduce_min(shape)
    middle = tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])
    # One more try, which always fits.
    fits = tf.concat([fits, [True]], 0)
    return tf.concat([tries, middle[tf.newaxis]], 0)[tf.argmax(fits)]


def seeds(seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """Seeds of samples, int64 (b, 2), which depend only on a run's seed, the epoch and the samples' numbers."""
    state = np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1, np.uint64)
    return np.stack([np.broadcast_to(state.view(np.int64), samples.shape), samples], axis=-1)


class DecodedReader:
    """Reads samples of an encoded catalogue as arrays (b, size, size, 3), decoded as for validation.

    Args:
        reader: reads the files; the size is that of its catalogue's input_shape.
    """

    def __init__(self, reader: EncodedReader):
        self.catalogue, self._reader = reader.catalogue, reader
        self._transform = _on_cpu(validation_transform(self.catalogue.input_shape[0]))
        self._whole = _on_cpu(_decode_whole)
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def read(self, indices) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, targets) as from `Reader.read`; UserError, naming file and row, for a damaged image."""
        files, targets = self._reader.read(indices)
        images = np.empty((len(files), *self.catalogue.input_shape), np.uint8)

        def put(sample, jpeg: bytes, out: np.ndarray) -> None:
            if not decode(jpeg, out):
                if (found := self.image(jpeg)) is None:
                    raise self._undecodable(sample)
                out[...] = found

        deque(self._threads.map(put, indices, files, images), maxlen=0)
        return images, targets

    def first_undecodable(self, samples) -> UserError | None:
        """The error of the first of these samples that cannot be read and decoded; None where all can."""
        for sample in samples:
            try:
                (jpeg,), _ = self._reader.read([sample])
                self._whole(jpeg)
            except UserError as error:
                return error
            except tf.errors.OpError:
                return self._undecodable(sample)
        return None

    def close(self) -> None:
        """Release the open files and the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._reader.close()

    def image(self, jpeg: bytes) -> np.ndarray | None:
        """One image, uint8 (size, size, 3); None where the file cannot be decoded."""
        try:
            return self._transform(jpeg).numpy()
        except tf.errors.OpError:
            return None

    def _undecodable(self, sample) -> UserError:
        (number,), (row,) = self.catalogue.locate([sample])
        where = f"{self.catalogue.files[number]}: row {row} (sample {sample} of {self.catalogue.split!r})"
        return damaged(where, "cannot be decoded as JPEG")


def _shape(jpeg: tf.Tensor) -> tf.Tensor:
    """(height, width), int32; an error of TensorFlow before it decodes more pixels than an image may have."""
    shape = tf.io.extract_jpeg_shape(jpeg)[:2]
    pixels = tf.reduce_prod(tf.cast(shape, tf.int64))
    with tf.control_dependencies([tf.debugging.assert_less_equal(pixels, np.int64(MOST_PIXELS))]):
        return tf.identity(shape)


def _place(draw: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """Where in [0, room] a part begins, from a draw in [0, 1)."""
    return tf.minimum(tf.cast(draw * tf.cast(room + 1, tf.float32), tf.int32), room)


def _decode(jpeg: tf.Tensor, window: tf.Tensor, size: int) -> tf.Tensor:
    """A window (y, x, height, width) of an image, resized to uint8 (size, size, 3)."""
    # Shrinking by powers of 2 while decoding saves work and aliasing; the rest to be shrunk is a factor below 2.
    most = tf.reduce_min(window[2:]) // size
    number = tf.reduce_sum(tf.cast(most >= _RATIOS[1:], tf.int32))

    def shrunk(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_and_crop_jpeg(jpeg, window // ratio, channels=3, ratio=ratio, dct_method=_DCT)

    image = tf.switch_case(number, [shrunk(ratio) for ratio in _RATIOS])
    image = tf.image.resize(image, (size, size))
    # Between the smallest and the largest pixel, so it fits.
    return tf.ensure_shape(tf.cast(image + 0.5, tf.uint8), (size, size, 3))


def _on_cpu(transform: Callable[[tf.Tensor], tf.Tensor]) -> Callable:
    """The compiled transform, all of it in host memory even where there is a GPU, as in `tf.data`."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def call(jpeg):
        with tf.device("/cpu:0"):
            return transform(jpeg)

    return call


def _decode_whole(jpeg: tf.Tensor) -> tf.Tensor:
    window = tf.concat([[0, 0], _shape(jpeg)], 0)
    return tf.reduce_max(tf.io.decode_and_crop_jpeg(jpeg, window, channels=3))
