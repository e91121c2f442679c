"""Changes to samples on their way into shards: unpack packed values, halve floats, shuffle the order."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hpc_train.data.catalogue.layout import split_name
from hpc_train.data.hdf5.access import missing_value, open_hdf5, packing
from hpc_train.errors import UserError

# More threads would decode faster than one thread compresses and writes.
_MOST_THREADS = 4
_HALF = np.finfo(np.float16)


class Conversion:
    """Reads samples of a catalogue and converts their inputs.

    Packed inputs (NetCDF's scale_factor and add_offset) become float32.

    Args:
        catalogue: where the samples are.
        float16: store floating-point inputs in half precision.
        seed: of a random order; None keeps the catalogue's order.

    Attributes:
        input_dtype, target_dtype: of the result, little endian.
        losses: int64 (2, channels), of the values other than 0: the number that float16 stores with few digits or none,
            and the number of all.

    Raises:
        UserError: `float16` for inputs that are not floating-point numbers; packed targets.
    """

    def __init__(self, catalogue, float16: bool = False, seed: int | None = None):
        from hpc_train.data.reading.reader import Reader

        self.catalogue, self.seed = catalogue, seed
        # The reader checks for NaN and for labels outside the classes.
        self._reader = Reader(catalogue)
        self._threads = ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0))))
        self.packed = any(pair != (1.0, 0.0) for pair in catalogue.packing)
        if float16 and not self.packed and catalogue.input_dtype.kind != "f":
            raise UserError(
                f"--float16 is for floating-point inputs, but these are {catalogue.input_dtype}; leave it out"
            )
        kept = np.dtype("<f4") if self.packed else catalogue.input_dtype.newbyteorder("<")
        self.input_dtype = np.dtype("<f2") if float16 else kept
        self.target_dtype = catalogue.target_dtype.newbyteorder("<")
        self.changes = self.packed or float16 or seed is not None
        self._missing = _missing_values(catalogue)
        self._axis = catalogue.channel_axis
        self.losses = np.zeros((2, 1 if self._axis is None else catalogue.input_shape[self._axis]), np.int64)

    def read(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, targets) of the samples [first, stop) in the new order.

        Raises:
            UserError: a sample cannot be read, is not finite, has a label outside the classes, a missing value in
                packed data or a value that float16 cannot hold; it names file, row and sample.
        """
        indices = np.arange(first, stop)
        if self.seed is not None:
            from hpc_train.data.plan.permutation import permute

            indices = permute(indices, self.catalogue.samples, self.seed, 0)
        inputs, targets = self._reader.empty(len(indices), np.empty)
        jobs, finish = self._reader.begin(indices, inputs, targets)
        list(self._threads.map(lambda job: job(), jobs))
        finish()
        if self.packed:
            inputs = self._unpacked(indices, inputs)
        if self.input_dtype == np.float16:
            inputs = self._halved(indices, inputs)
        return inputs, targets

    def pieces(self, first: int, stop: int, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read [first, stop), `rows` samples at a time; the next piece is read while the last one is used."""
        starts = iter(range(first, stop, rows))
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.read, next(starts), min(first + rows, stop))
            for start in starts:
                now, coming = coming, ahead.submit(self.read, start, min(start + rows, stop))
                yield now.result()
            yield coming.result()

    def _unpacked(self, indices, inputs):
        values, packings = np.empty(inputs.shape, np.float32), self.catalogue.packing
        for place, (scale, offset) in enumerate(packings):
            # Several data sets are stacked along the first axis of a sample.
            part = (slice(None), place) if len(packings) > 1 else slice(None)
            missing = self._missing[place]
            if missing is not None and (inputs[part] == missing).any():
                sample = int(np.argmax((inputs[part] == missing).reshape(len(inputs), -1).any(axis=1)))
                name = self.catalogue.layout.inputs[place]
                raise UserError(
                    f"{self._named(indices, sample)}: {name} has missing values; fill them in or leave {name} out"
                )
            # In float64, because an integer of 32 bits has more digits than a float32.
            values[part] = inputs[part].astype(np.float64) * scale + offset
        return values

    def _halved(self, indices, inputs):
        with np.errstate(over="ignore"):
            halved = inputs.astype(np.float16)
        if not np.isfinite(halved).all():
            place = tuple(np.argwhere(~np.isfinite(halved))[0])
            channel = "" if self._axis is None else f" in channel {place[1 + self._axis]}"
            raise UserError(
                f"{self._named(indices, place[0])}: holds {inputs[place]:g}{channel}, but float16 ends at "
                f"{_HALF.max:g}; scale this channel, or leave out --float16"
            )
        others = tuple(a for a in range(inputs.ndim) if self._axis is None or a != 1 + self._axis)
        some = inputs != 0
        small = some & (np.abs(inputs) < _HALF.smallest_normal)
        self.losses += [np.sum(mask, axis=others).reshape(-1) for mask in (small, some)]
        return halved

    def _named(self, indices, place: int) -> str:
        (number,), (row,) = self.catalogue.locate([indices[place]])
        return f"{self.catalogue.files[number]}: row {row} (sample {indices[place]} of {self.catalogue.split!r})"


def loss_warnings(losses: np.ndarray) -> list[str]:
    """One line for each channel that lost digits in float16, from the `losses` of a `Conversion`."""
    return [
        f"{losses[0, channel] / losses[1, channel]:.2%} of the values of channel {channel} other than 0 are below "
        f"{_HALF.smallest_normal:.1e}, where float16 has few digits or none; scale it, or leave out --float16"
        for channel in np.flatnonzero(losses[0])
    ]


def _missing_values(catalogue) -> list:
    """The value that means "missing" in each data set of the inputs; UserError for packed targets."""
    with open_hdf5(catalogue.files[0]) as file:
        for name in catalogue.layout.targets:
            if packing(file[split_name(name)[0]]) != (1.0, 0.0):
                raise UserError(
                    f"{catalogue.files[0]}: the targets {name} are packed (scale_factor, add_offset), which shards "
                    "cannot store; unpack them, or choose other targets"
                )
        return [missing_value(file[split_name(name)[0]]) for name in catalogue.layout.inputs]
