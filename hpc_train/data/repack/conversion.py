"""Changes to samples on their way into shards: unpack packed values, halve floats, shuffle the order."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hpc_train.data.catalogue.layout import split_name
from hpc_train.data.hdf5.access import missing_value, open_hdf5
from hpc_train.errors import UserError

# More threads would decode faster than one thread compresses and writes.
_MOST_THREADS = 4
_HALF = np.finfo(np.float16)


class Conversion:
    """Reads samples of a catalogue and converts them.

    Packed values (NetCDF's scale_factor and add_offset) become float32.

    Args:
        catalogue: where the samples are.
        float16: store floating-point inputs in half precision.
        seed: of a random order; None keeps the catalogue's order.
        ignore: a stored label that is allowed besides the classes.

    Attributes:
        kinds: {data set: (shape of a sample, dtype)} of the result, little endian.
        losses: int64 (2, channels), of the values of the first input other than 0: the number that float16 stores with
            few digits or none, and the number of all.

    Raises:
        UserError: `float16` for several inputs, and for one that has no floating-point numbers.
    """

    def __init__(self, catalogue, float16: bool = False, seed: int | None = None, ignore: int | None = None):
        from hpc_train.data.reading.reader import Reader

        self.catalogue, self.seed = catalogue, seed
        # The reader checks for NaN and for labels outside the classes.
        self._reader = Reader(catalogue, ignore=ignore)
        self._threads = ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0))))
        first = catalogue.inputs[0]
        if float16 and not first.packed and first.dtype.kind != "f":
            raise UserError(f"--float16 is for floating-point inputs, but these are {first.dtype}; leave it out")
        if float16 and len(catalogue.inputs) > 1:
            raise UserError("--float16 is for data with one input; leave it out")
        self.kinds = {_shard_name(part): (part.shape, self._dtype(part, float16)) for part in catalogue.parts}
        self.changes = any(part.packed for part in catalogue.parts) or float16 or seed is not None
        self._missing = _missing_values(catalogue)
        self._axis = catalogue.channel_axis_of(first)
        self.losses = np.zeros((2, catalogue.channels_of(first)), np.int64)

    @staticmethod
    def _dtype(part, float16: bool) -> np.dtype:
        if float16 and part.role == "input" and (part.packed or part.dtype.kind == "f"):
            return np.dtype("<f2")
        return np.dtype("<f4") if part.packed else part.dtype.newbyteorder("<")

    @property
    def input_dtype(self) -> np.dtype:
        """Of the first input, as it is written."""
        return next(iter(self.kinds.values()))[1]

    @property
    def sample_text(self) -> str:
        """Shapes and types of the inputs as they are written: "(28, 28, 1) uint8"."""
        kinds = {part.name: self.kinds[_shard_name(part)] for part in self.catalogue.inputs}
        return ", ".join(f"{name} {shape} {dtype.name}".strip() for name, (shape, dtype) in kinds.items())

    def read(self, first: int, stop: int) -> tuple[np.ndarray, ...]:
        """The arrays of the samples [first, stop) in the new order.

        Raises:
            UserError: a sample cannot be read, is not finite, has a label outside the classes, a missing value in
                packed data or a value that float16 cannot hold; it names file, row and sample.
        """
        indices = np.arange(first, stop)
        if self.seed is not None:
            from hpc_train.data.plan.permutation import permute

            indices = permute(indices, self.catalogue.samples, self.seed, 0)
        arrays = self._reader.empty(len(indices), np.empty)
        jobs, finish = self._reader.begin(indices, *arrays)
        list(self._threads.map(lambda job: job(), jobs))
        finish()
        return tuple(self._converted(indices, number, array) for number, array in enumerate(arrays))

    def _converted(self, indices, number: int, array: np.ndarray) -> np.ndarray:
        part = self.catalogue.parts[number]
        if part.packed:
            array = self._unpacked(indices, part, self._missing[number], array)
        if self.kinds[_shard_name(part)][1] == np.float16 and array.dtype != np.float16:
            array = self._halved(indices, array)
        return array

    def pieces(self, first: int, stop: int, rows: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Read [first, stop), `rows` samples at a time; the next piece is read while the last one is used."""
        starts = iter(range(first, stop, rows))
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.read, next(starts), min(first + rows, stop))
            for start in starts:
                now, coming = coming, ahead.submit(self.read, start, min(start + rows, stop))
                yield now.result()
            yield coming.result()

    def _unpacked(self, indices, part, missing_values: list, stored):
        values, packings = np.empty(stored.shape, np.float32), part.packing
        for place, (scale, offset) in enumerate(packings):
            # Several data sets are stacked along the first axis of a sample.
            where = (slice(None), place) if len(packings) > 1 else slice(None)
            missing = missing_values[place]
            if missing is not None and (stored[where] == missing).any():
                sample = int(np.argmax((stored[where] == missing).reshape(len(stored), -1).any(axis=1)))
                name = part.datasets[place]
                raise UserError(
                    f"{self._named(indices, sample)}: {name} has missing values; fill them in or leave {name} out"
                )
            # In float64, because an integer of 32 bits has more digits than a float32.
            values[where] = stored[where].astype(np.float64) * scale + offset
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


def _shard_name(part) -> str:
    """The data set of a part in a shard."""
    return f"{part.role}s/{part.name}" if part.name else f"{part.role}s"


def _missing_values(catalogue) -> list[list]:
    """The value that means "missing" in each data set of each part."""
    with open_hdf5(catalogue.files[0]) as file:
        return [[missing_value(file[split_name(name)[0]]) for name in part.datasets] for part in catalogue.parts]
