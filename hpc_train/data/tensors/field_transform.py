"""Transform maps between the reader and the network: crop, turn and mirror them, and map their labels.

A map that is turned is global: its last column is beside the first. The rows of a map that is mirrored at the equator
are symmetric about it. Plain pictures are turned upside down, and left and right are swapped.
"""

import numpy as np
import tensorflow as tf

from hpc_train.data.catalogue.class_map import IGNORED, ClassMap
from hpc_train.errors import UserError


class FieldTransform:
    """Maps the labels of batches to classes, and varies the maps in training.

    What happens to a sample depends only on (seed, epoch, its number), not on its rank and step.

    Args:
        stored: catalogue of the samples as they are read: maps (height, width, channels) or (channels, height, width)
            with labels (height, width).
        classes: the map from stored labels to classes.
        roll: turn each map in longitude by a random number of columns.
        flip: mirror a map at the equator, or a picture at its middle row, half of the time.
        crop: (height, width) of the random part to take of each map.
        turned: numbers of the channels whose sign changes in a mirrored map.
        wraps: the random part may cross the left and right edge.
        mirror: swap left and right half of the time.
        picture: the maps are plain pictures, which `describe` calls so.

    Raises:
        UserError: on every rank, for a part that is larger than the map, or a sign that the data cannot hold.
    """

    # Random numbers of a sample: first row, first column, and 1 if it is flipped plus 2 if it is mirrored.
    NUMBERS = 3

    def __init__(
        self,
        stored,
        classes: ClassMap,
        roll: bool = False,
        flip: bool = False,
        crop: tuple[int, int] | None = None,
        turned: tuple[int, ...] = (),
        wraps: bool = True,
        mirror: bool = False,
        picture: bool = False,
    ):
        self._first = stored.channel_axis == 0
        self._channels = stored.input_shape[stored.channel_axis]
        self._map, self._part = stored.target_shape, tuple(crop or stored.target_shape)
        self._roll, self._flip, self._crop, self._wraps = roll, flip, crop, wraps
        self._mirror, self._picture = mirror, picture
        self._classes = classes
        if any(part > whole for part, whole in zip(self._part, self._map, strict=True)):
            sizes = (" x ".join(map(str, size)) for size in (self._part, self._map))
            raise UserError("--random-crop {} is larger than the maps, {}; give a smaller part".format(*sizes)).agreed()
        self._named = " ".join(stored.channel_names[number] for number in turned)
        self._sign = _sign_turn(stored, turned) if flip and turned else None

    @property
    def varies(self) -> bool:
        """Whether training changes the maps."""
        return bool(self._roll or self._flip or self._crop or self._mirror)

    def draw(self, seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
        """Random numbers, int32 (samples, NUMBERS), of the samples of these numbers, int64 (samples,), in an epoch."""
        (height, width), moves = self._map, self._roll or self._crop
        lefts = width if self._wraps else width - self._part[1] + 1
        drawn = np.empty((len(samples), self.NUMBERS), np.int32)
        for row, sample in zip(drawn, samples, strict=True):
            random = np.random.default_rng([seed % 2**64, epoch, int(sample)])
            top, left, flip = random.integers(0, (height - self._part[0] + 1, lefts, 2))
            # The last number is drawn only where it is used: others get the same numbers without it.
            mirror = random.integers(0, 2) if self._mirror else 0
            row[:] = top, left if moves else 0, (flip if self._flip else 0) + 2 * mirror
        return drawn

    def describe(self) -> list[str]:
        """What training does with the maps, in lines to print."""
        lines = []
        if self._roll:
            lines.append("turned in longitude by any number of columns")
        if self._flip and self._picture:
            lines.append("turned upside down half of the time")
        elif self._flip:
            lines.append(
                f"mirrored at the equator half of the time, with the sign of {self._named or 'no channel'} changed"
            )
        if self._mirror:
            lines.append("left and right swapped half of the time")
        if self._crop:
            lines.append("a random part of {2} x {3} of each map of {0} x {1}".format(*self._map, *self._part))
        return [f"training: {'; '.join(lines)}"] if lines else []

    def training(self, inputs: tf.Tensor, targets: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """A batch for training; inputs and targets: (b, ...) as stored; drawn: from `draw`."""
        height, width = self._part
        shape = (self._channels, height, width) if self._first else (height, width, self._channels)
        specs = tf.TensorSpec(shape, inputs.dtype), tf.TensorSpec(self._part, targets.dtype)
        inputs, targets = tf.map_fn(self._varied, (inputs, targets, drawn), fn_output_signature=specs)
        return self.validation(inputs, targets)

    def validation(self, inputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """A batch for validation: whole maps, with their labels mapped to classes."""
        if not self._classes.changes:
            return inputs, targets
        numbers, table = tf.cast(targets, tf.int32), [*self._classes.of_label, IGNORED]
        if self._classes.ignore is not None:
            numbers = tf.where(numbers == self._classes.ignore, len(table) - 1, numbers)
        return inputs, tf.gather(tf.constant(table, self._classes.dtype), numbers)

    def _varied(self, sample: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        inputs, targets, drawn = sample
        top, left, flip = tf.unstack(drawn)
        inputs = self._window(inputs, int(self._first), top, left, flip)
        targets = self._window(targets, 0, top, left, flip)
        if self._sign:
            inputs = tf.cond(flip % 2 > 0, lambda: self._turn(inputs), lambda: inputs)
        return inputs, targets

    def _window(self, values: tf.Tensor, axis: int, top, left, flip) -> tf.Tensor:
        """The part of one sample that begins at a row and a column; `axis` counts rows, the next axis columns."""
        height, width = self._part
        if self._flip or self._crop:
            rows = tf.range(height)
            values = tf.gather(values, top + tf.where(flip % 2 > 0, height - 1 - rows, rows), axis=axis)
        if self._roll or self._crop:
            before = (slice(None),) * (axis + 1)
            beyond = tf.maximum(left + width - self._map[1], 0)
            parts = [values[(*before, part)] for part in (slice(left, left + width), slice(beyond))]
            values = tf.concat(parts, axis + 1)
        if self._mirror:
            columns = tf.range(width)
            values = tf.gather(values, tf.where(flip > 1, width - 1 - columns, columns), axis=axis + 1)
        return values

    def _turn(self, inputs: tf.Tensor) -> tf.Tensor:
        sign, shift = self._sign
        # Wider, so that the sign of the lowest whole number changes before the value is clipped to the range.
        wide = inputs.dtype if inputs.dtype.is_floating else tf.int64 if inputs.dtype.size > 2 else tf.int32
        shape = (-1, 1, 1) if self._first else (-1,)
        sign, shift = (tf.reshape(tf.constant(values, wide), shape) for values in (sign, shift))
        return tf.saturate_cast(tf.cast(inputs, wide) * sign - shift, inputs.dtype)


def _sign_turn(stored, turned: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(sign, shift) of each channel: value * sign - shift is the stored value with the other sign.

    For packed integers the shift is rounded, so the value can be wrong by half a step of the packing.
    """
    channels = stored.input_shape[stored.channel_axis]
    scale, offset = np.resize(np.array(stored.packing), (channels, 2)).T
    if not scale[list(turned)].all():
        raise UserError(f"{stored.files[0]}: a wind with scale_factor 0 has no sign; leave flip out").agreed()
    sign, shift = np.ones(channels), np.zeros(channels)
    sign[list(turned)] = -1
    shift[list(turned)] = 2 * (offset / scale)[list(turned)]
    if stored.input_dtype.kind == "f":
        return sign, shift
    if stored.input_dtype.kind == "u" and (offset >= 0)[list(turned)].any():
        raise UserError(
            f"{stored.files[0]}: {stored.input_dtype} cannot hold negative winds, whose sign --augment flip "
            "changes; leave flip out"
        ).agreed()
    return sign.astype(np.int64), np.rint(shift).astype(np.int64)
