"""Other ways to read HDF5: h5py as people use it, the same in threads, and a PyTorch DataLoader over it.

Each is a function of the batches' indices, int64 (b,), that delivers the batches: inputs (b, ...), targets (b, ...).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.hdf5.contents import dataset_at

Batch = tuple[np.ndarray, np.ndarray]
_OPEN_FILES = 256


class H5py:
    """Batches by h5py's fancy indexing: for each file of a batch, `data[sorted unique rows]`, then put in order.

    Files of many samples are kept open. A file of a single sample is opened, read and closed.

    Args:
        catalogue: of the data.
        open_hdf5: opens a path with h5py.
    """

    def __init__(self, catalogue: Catalogue, open_hdf5: Callable):
        self._catalogue, self._open = catalogue, open_hdf5
        self._kept = lru_cache(maxsize=_OPEN_FILES)(open_hdf5)

    def batches(self, indices: Iterable[np.ndarray]) -> Iterator[Batch]:
        """One batch after the other."""
        return map(self.read, indices)

    def read(self, indices: np.ndarray) -> Batch:
        """The batch of these samples."""
        layout = self._catalogue.layout
        files, rows = self._catalogue.locate(indices)
        parts = []
        for number in np.unique(files):
            path, chosen = self._catalogue.files[number], rows[files == number]
            if layout.rows:
                parts.append(_rows_of(self._kept(path), layout, chosen))
            else:
                with self._open(path) as file:
                    parts.append(_sample_of(file, layout))
        if len(parts) == 1:
            return parts[0]
        back = np.argsort(np.argsort(files, kind="stable"))
        return tuple(np.concatenate(arrays)[back] for arrays in zip(*parts, strict=True))

    def threaded(self, indices: Iterable[np.ndarray], threads: int, read_ahead: int) -> Iterator[Batch]:
        """The same in a pool of threads; `read_ahead` batches, at least one for each thread, are under way."""
        coming = deque()
        with ThreadPoolExecutor(threads) as pool:
            for chosen in indices:
                coming.append(pool.submit(self.read, chosen))
                if len(coming) > max(threads, read_ahead):
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()


class TorchLoader:
    """torch.utils.data.DataLoader over a map-style data set: sample by sample with h5py, in worker processes."""

    def __init__(self, catalogue: Catalogue, open_hdf5: Callable, workers: int):
        from torch.utils.data import DataLoader

        self._order: list[np.ndarray] = []
        # The workers keep what they were forked with. Only the order changes, and it stays in this process.
        self._loader = DataLoader(
            _Samples(catalogue, open_hdf5),
            batch_sampler=_Order(self._order),
            num_workers=workers,
            multiprocessing_context="fork",
        )

    def batches(self, indices: Iterable[np.ndarray]) -> Iterator[Batch]:
        """One batch after the other."""
        self._order[:] = [chosen.tolist() for chosen in indices]
        for inputs, targets in self._loader:
            yield inputs.numpy(), targets.numpy()


class _Order:
    """A batch sampler: the lists that `order` holds at the moment."""

    def __init__(self, order: list):
        self._order = order

    def __iter__(self):
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


class _Samples:
    """A map-style data set; each worker opens a file when it first needs it."""

    def __init__(self, catalogue: Catalogue, open_hdf5: Callable):
        self._catalogue, self._open = catalogue, open_hdf5
        self._files = {}

    def __len__(self) -> int:
        return self._catalogue.samples

    def __getitem__(self, index: int) -> tuple:
        catalogue = self._catalogue
        files, rows = catalogue.locate([index])
        path, layout = catalogue.files[files[0]], catalogue.layout
        if not layout.rows:
            with self._open(path) as file:
                return tuple(array[0] for array in _sample_of(file, layout))
        if path not in self._files:
            self._files[path] = self._open(path)
        read = _read(self._files[path], layout, lambda data, part: data[(rows[0], *part)][None])
        return tuple(array[0] for array in read)


def _rows_of(file, layout, rows: np.ndarray) -> Batch:
    unique, back = np.unique(rows, return_inverse=True)  # h5py takes rows in increasing order, once each
    return _read(file, layout, lambda data, part: data[(unique, *part)][back])


def _sample_of(file, layout) -> Batch:
    return _read(file, layout, lambda data, part: data[part or ()][None])


def _read(file, layout, take: Callable) -> Batch:
    """Inputs and targets of `file`, several data sets stacked; take(data, index within a row) reads one data set."""

    def stacked(names: tuple[str, ...]) -> np.ndarray:
        parts = [dataset_at(file, name) for name in names]
        arrays = [take(dataset, () if select is None else (select,)) for dataset, select in parts]
        return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)

    inputs = stacked(layout.inputs)
    return inputs, stacked(layout.targets) if layout.targets else np.zeros(len(inputs), np.uint8)
