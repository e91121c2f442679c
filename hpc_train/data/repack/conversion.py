"""Changes to samples on their way into shards: unpack packed values, halve floats, shuffle the order."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hpc_train.data.sample_checks import first_not_finite
from hpc_train.errors import UserError

# More threads would decode faster than one thread compresses and writes.
_MOST_THREADS = 4
_HALF = np.finfo(np.float16)


class Conversion:
    """Reads samples of a catalogue and converts them.

    Packed values (NetCDF's scale_factor and add_offset) become float32, and numbers of several types the smallest type
    that holds all of them exactly.

    Args:
        catalogue: where the samples are.
        float16: store floating-point inputs in half precision.
        seed: of a random order; None keeps the catalogue's order.
        beside: catalogues of other splits, whose values shall get the same types; labels keep theirs.
        ignore: a stored label that is allowed besides the classes.

    Attributes:
        kinds: {data set: (shape of a sample, dtype)} of the result, little endian.
        losses: int64 (2, channels), of the values of the first input other than 0: the number that float16 stores with
            few digits or none, and the number of all.
        converts: whether stored types change, without `float16`.
        changes: whether anything changes, types or the order.

    Raises:
        UserError: `float16` for several inputs, and for one that has no floating-point numbers; types that no type
            holds exactly.
    """

    def __init__(self, catalogue, float16: bool = False, seed: int | None = None, beside=(), ignore: int | None = None):
        from hpc_train.data.reading.reader import Reader

        self.catalogue, self.seed = catalogue, seed
        # Readers check for NaN and for labels outside the classes.
        self._readers = [Reader(form, ignore=ignore) for form in _forms(catalogue)]
        self._form_of = np.array(catalogue.form_of or [0] * len(catalogue.files))
        self._dtypes = [_common_dtype(catalogue, number, beside) for number in range(len(catalogue.parts))]
        self._threads = ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0))))
        first = catalogue.inputs[0]
        if float16 and self._dtypes[0].kind != "f":
            raise UserError(f"--float16 is for floating-point inputs, but these are {first.dtype}; leave it out")
        if float16 and len(catalogue.inputs) > 1:
            raise UserError("--float16 is for data with one input; leave it out")
        half = float16 and self._dtypes[0] != np.float16
        stored = [np.dtype("<f2"), *self._dtypes[1:]] if half else self._dtypes
        self.kinds = {
            _shard_name(part): (part.shape, dtype.newbyteorder("<"))
            for part, dtype in zip(catalogue.parts, stored, strict=True)
        }
        alike = all(
            part.dtype == dtype and not part.packed for part, dtype in zip(catalogue.parts, self._dtypes, strict=True)
        )
        self.converts = len(self._readers) > 1 or not alike
        self.changes = half or seed is not None or self.converts
        self._axis = catalogue.channel_axis_of(first)
        self.losses = np.zeros((2, catalogue.channels_of(first)), np.int64)

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
        if len(self._readers) == 1:
            return self._read_form(self._readers[0], indices)
        forms = self._form_of[self.catalogue.locate(indices)[0]]
        arrays = tuple(np.empty((len(indices), *shape), dtype) for shape, dtype in self.kinds.values())
        for number in np.unique(forms):
            where = forms == number
            for array, values in zip(arrays, self._read_form(self._readers[number], indices[where]), strict=True):
                array[where] = values
        return arrays

    def _read_form(self, reader, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        arrays = reader.empty(len(indices), np.empty)
        jobs, finish = reader.begin(indices, *arrays)
        list(self._threads.map(lambda job: job(), jobs))
        finish()
        pairs = enumerate(zip(reader.catalogue.parts, arrays, strict=True))
        return tuple(self._converted(indices, number, *pair) for number, pair in pairs)

    def _converted(self, indices, number: int, part, array: np.ndarray) -> np.ndarray:
        if part.packed:
            array = self._unpacked(indices, part, array)
        array = array.astype(self._dtypes[number], copy=False)
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

    def _unpacked(self, indices, part, stored):
        values, packings = np.empty(stored.shape, np.float32), part.packing
        for place, (scale, offset) in enumerate(packings):
            # Several data sets are stacked along the first axis of a sample.
            where = (slice(None), place) if len(packings) > 1 else slice(None)
            # In float64, because an integer of 32 bits has more digits than a float32.
            with np.errstate(over="ignore"):
                values[where] = stored[where].astype(np.float64) * scale + offset
            if (sample := first_not_finite(values[where])) is not None:
                raise UserError(
                    f"{self._named(indices, sample)}: {part.datasets[place]} holds a value that float32 cannot hold, "
                    f"stored * {scale:g} + {offset:g}; correct its scale_factor and add_offset"
                )
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


def _forms(catalogue) -> list:
    """The catalogue with the parts of each of its forms."""
    return [catalogue.of_form(number) for number in range(len(catalogue.forms))] or [catalogue]


def _common_dtype(catalogue, number: int, beside) -> np.dtype:
    """The type that holds exactly what all files have of a part; float32 for packed values."""
    part, labels = catalogue.parts[number], [one.label for one in catalogue.parts]
    several = [catalogue]
    if not (catalogue.labelled and part.role == "target"):
        several += [other for other in beside if [one.label for one in other.parts] == labels]
    parts = [form.parts[number] for one in several for form in _forms(one)]
    dtypes = {np.dtype(np.float32) if one.packed else one.dtype.newbyteorder("=") for one in parts}
    common = np.result_type(*dtypes)
    if common.kind == "f" and any(dtype.kind != "f" and dtype.itemsize > 4 for dtype in dtypes):
        raise UserError(
            f"{catalogue.directory}: the {part.label} is {' and '.join(sorted(map(str, dtypes)))} in different files, "
            "and no type holds all of these exactly; convert some of the files yourself"
        )
    return common


def _shard_name(part) -> str:
    """The data set of a part in a shard."""
    return f"{part.role}s/{part.name}" if part.name else f"{part.role}s"
