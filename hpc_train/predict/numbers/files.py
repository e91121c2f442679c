"""Writes predicted numbers, batch by batch: HDF5 for any shape, CSV for numbers and vectors, NetCDF for maps."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.errors import UserError
from hpc_train.names import cell
from hpc_train.predict.netcdf import field_file
from hpc_train.predict.numbers.quantity import Quantity
from hpc_train.predict.numbers.source import NumberSource
from hpc_train.predict.writing import one_line, written

# Adds the next samples: their numbers, then for each quantity the predictions (b, *shape) and the targets or None.
Add = Callable[[np.ndarray, Sequence[np.ndarray], Sequence[np.ndarray | None]], None]


def number_file(
    path: Path, quantities: Sequence[Quantity], labelled: bool, source: NumberSource, attributes: dict[str, str]
):
    """A context with the function that adds samples; the file appears when it ends without an error.

    HDF5: data sets `predicted` and `targets` (n, *shape), or with several quantities groups of these names. CSV: a line
    for each sample. NetCDF: see `netcdf.FieldFile`.

    Args:
        path: .h5, .csv or .nc.
        quantities: what is predicted.
        labelled: whether there are targets.
        source: of the samples.
        attributes: about the file: run, model, data, ...

    Raises:
        UserError: the format cannot hold the quantities, or the file cannot be written.
    """
    shapes = ", ".join(f"{one.name} {one.shape}" for one in quantities)
    if path.suffix == ".csv":
        if any(len(one.shape) > 1 for one in quantities):
            raise UserError(f"--output {path}: CSV holds numbers and vectors, not {shapes}; give a name ending in .h5")
        return _csv(path, quantities, labelled)
    if path.suffix in (".nc", ".nc4"):
        first = quantities[0]
        if not all(one.is_map and one.shape == first.shape for one in quantities):
            raise UserError(
                f"--output {path}: NetCDF holds maps of one size whose file gives their latitudes and longitudes, not "
                f"{shapes}; give a name ending in .h5"
            )
        return _netcdf(path, quantities, labelled, source, attributes)
    return _hdf5(path, quantities, source.samples, attributes)


@contextmanager
def _hdf5(path: Path, quantities: Sequence[Quantity], samples: int, attributes: dict[str, str]) -> Iterator[Add]:
    with written(path, lambda temporary: open_hdf5(temporary, "w")) as file:
        file.attrs.update(attributes)

        def put(kind: str, numbers, quantity: Quantity, values: np.ndarray) -> None:
            name = kind if len(quantities) == 1 else f"{kind}/{quantity.name}"
            if name not in file:
                dtype = np.result_type(values.dtype, np.float32)
                file.create_dataset(name, (samples, *quantity.shape), dtype)
                file[name].attrs.update(channel_names=quantity.channel_names, units=quantity.units)
            file[name][numbers[0] : numbers[-1] + 1] = values

        def add(numbers, predicted, targets):
            with one_line(path):
                for quantity, values, truth in zip(quantities, predicted, targets, strict=True):
                    put("predicted", numbers, quantity, values)
                    if truth is not None:
                        put("targets", numbers, quantity, truth)

        yield add


@contextmanager
def _csv(path: Path, quantities: Sequence[Quantity], labelled: bool) -> Iterator[Add]:
    kinds = ("target", "predicted") if labelled else ("predicted",)
    names = [name for one in quantities for name in one.channel_names]
    with written(path, lambda temporary: open(temporary, "w", newline="")) as file:
        writer = csv.writer(file)
        columns = kinds if len(names) == 1 else [cell(f"{name} {kind}") for name in names for kind in kinds]
        writer.writerow(["sample", *columns])

        def add(numbers, predicted, targets):
            columns = []
            for quantity, values, truth in zip(quantities, predicted, targets, strict=True):
                kept = [truth, values] if truth is not None else [values]
                flat = [quantity.channels_last(one).reshape(len(one), -1) for one in kept]
                # NumPy's str has as many digits as the type needs.
                columns += [map(str, one[:, place]) for place in range(flat[0].shape[1]) for one in flat]
            with one_line(path):
                writer.writerows(zip(numbers.tolist(), *columns, strict=True))

        yield add


@contextmanager
def _netcdf(path: Path, quantities, labelled: bool, source: NumberSource, attributes: dict[str, str]) -> Iterator[Add]:
    fields = [pair for one in quantities for pair in zip(one.channel_names, one.units, strict=True)]
    timed = source.time(0)
    with field_file(path, quantities[0].grid, fields, labelled, timed and timed.calendar, attributes) as file:

        def add(numbers, predicted, targets):
            kinds = [predicted, targets] if labelled else [predicted]
            maps = [
                np.concatenate([one.channels_last(part) for one, part in zip(quantities, kind, strict=True)], -1)
                for kind in kinds
            ]
            for row, number in enumerate(numbers.tolist()):
                time = source.time(number) if timed else None
                file.add(source.place(number), time, [one[row] for one in maps])

        yield add
