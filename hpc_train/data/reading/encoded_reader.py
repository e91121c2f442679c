"""The reader of encoded shards: JPEG files by the numbers of their samples, as bytes that are not decoded here."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import xxhash

from hpc_train.data.catalogue.file_info import JPEG, NOT_CONTIGUOUS
from hpc_train.data.hdf5.contiguous import LARGE_SAMPLE
from hpc_train.data.hdf5.raw_file import File
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.format import JPEG_END, JPEG_START
from hpc_train.errors import UserError

# Neighbours are read together up to this many bytes.
_PIECE = 4 * 2**20
# Most requests to the file system in one job.
_REQUESTS = 8


def open_reader(catalogue, **options) -> Reader:
    """The reader for a catalogue: an `EncodedReader` for encoded images, else a `Reader`; options are passed on."""
    return (EncodedReader if catalogue.encoding else Reader)(catalogue, **options)


class EncodedReader(Reader):
    """Reads encoded images as object arrays (b,) of `bytes`, each a JPEG file; otherwise as `Reader`.

    Args:
        catalogue: of encoded images.
        check: compare each image with its checksum, which costs a thousandth of its decoding. Where the shards have
            none, look for the markers that a JPEG file begins and ends with.
        how: "map" or "read"; "auto" takes small images from a map and large ones with positioned reads.
        open_file: opens a path as a `raw_file.File`.

    Raises:
        UserError: naming file and row, for a damaged image.
    """

    encoding = JPEG

    def __init__(self, catalogue, check: bool = True, how: str = "auto", open_file: Callable[[str], File] = File):
        if how == "h5py":
            raise UserError("--reader h5py is not for encoded images; leave it out, or give map or read").agreed()
        super().__init__(catalogue, check, how, open_file)
        # Every image is checked whenever it is read; checking labels costs nothing beside that.
        self._looked = None

    @property
    def sample_bytes(self) -> int:
        """Mean bytes of a stored image and its target."""
        return self._stored_bytes

    @cached_property
    def _stored_bytes(self) -> int:
        # From the sizes of the files: their other contents are small.
        return max(1, int(self.catalogue.sizes.sum()) // self.catalogue.samples)

    def empty(self, samples: int, allocate: Callable) -> tuple[np.ndarray, ...]:
        """Arrays for this many samples; allocate(shape, dtype) makes that of the targets."""
        catalogue = self.catalogue
        dtype = catalogue.target_dtype.newbyteorder("=")
        return np.empty(samples, object), allocate((samples, *catalogue.target_shape), dtype)

    def _open_file(self, number: int) -> list:
        catalogue = self.catalogue
        file = self.open_storage(catalogue.files[number])
        targets = int(catalogue.at[number][1])
        rows, first = int(catalogue.rows[number]), int(catalogue.offsets[number])
        images = self._array(file, catalogue.at[number], rows, self._mapped(), self.check)
        images.where = lambda row: f"{file.path}: row {row} (sample {first + row} of {catalogue.split!r})"
        shape, dtype = catalogue.target_shape, catalogue.target_dtype
        return [images, self._contiguous("targets", file, targets, rows, shape, dtype, None)]

    def _array(self, *arguments) -> "EncodedArray":
        return EncodedArray(*arguments)

    def _mapped(self) -> bool:
        return self.how == "map" or (self.how == "auto" and self._stored_bytes < LARGE_SAMPLE)


class EncodedArray:
    """The images of one shard.

    Extents and checksums are looked up in a map of the file, so that they take no memory for any number of images.

    Args:
        file: the file that holds them.
        at: byte offsets of images, targets, extents and checksums; the last is -1 where there are no checksums.
        rows: number of images.
        mapped: take them from a map in memory.
        check: see `EncodedReader`.

    Attributes:
        where: gives file and row of a row's number, for messages.
        gathered: most images that one job takes from a map, or one request.
    """

    rows_together, gathered = 1, 256

    def __init__(self, file: File, at: np.ndarray, rows: int, mapped: bool, check: bool):
        self.file, self._check = file, check
        self._start, _, extents, checksums = map(int, at)
        self._extents = _Column(file, extents, rows + 1, "<i8")
        self._checksums = None if checksums == NOT_CONTIGUOUS else _Column(file, checksums, rows, "<u8")
        self._memory = file.map() if mapped else None
        self._bytes = int(self._extents[np.array([rows])][0])
        self._mean = self._bytes // rows
        _check_size(file, self._start + self._bytes)
        self.where: Callable[[int], str] = lambda row: f"{file.path}: row {row}"

    @property
    def quick(self) -> bool:
        """Whether jobs are so cheap that several should run as one."""
        return self._memory is not None

    @property
    def description(self) -> str:
        """How they are read."""
        how = "positioned reads, in threads" if self._memory is None else "taken from a map of the file in memory"
        checked = ", compared with their checksums" if self._check and self._checksums else ""
        return f"JPEG files of {self._mean} bytes on average: {how}{checked}"

    def jobs(self, rows: np.ndarray, places: np.ndarray, out: np.ndarray, look) -> list[Callable[[], None]]:
        """Functions that together make out[places[i]] the image rows[i], `bytes`, for any threads, in any order.

        Args:
            rows: int64 (k,), sorted.
            places: int64 (k,).
            out: object array.
            look: not used.
        """
        starts, stops = self._extents[rows], self._extents[rows + 1]
        sums = self._checksums[rows] if self._checksums and self._check else None
        if (bad := (starts < 0) | (stops <= starts) | (stops > self._bytes)).any():
            raise self.damaged(int(rows[np.argmax(bad)]), "has an extent outside the images")
        # A run of neighbours is one request.
        edges = np.arange(self.gathered, len(rows), self.gathered)
        if self._memory is None:
            apart = (starts[1:] != stops[:-1]) | (stops[1:] // _PIECE != stops[:-1] // _PIECE)
            edges = np.union1d(edges, np.flatnonzero(apart) + 1)
        runs = np.split(np.arange(len(rows)), edges)

        def take(run: np.ndarray) -> None:
            read = self._read if self._memory is None else self._gather
            for i, image in zip(run, read(starts[run], stops[run]), strict=True):
                if self._check:
                    self._examine(int(rows[i]), image, None if sums is None else int(sums[i]))
                self.put(image, int(rows[i]), out[places[i] : places[i] + 1])

        share = 1 if self._memory is not None else max(1, min(_REQUESTS, len(runs) // 16))
        return [lambda some=runs[k : k + share]: [take(run) for run in some] for k in range(0, len(runs), share)]

    def put(self, image: bytes, row: int, out: np.ndarray) -> None:
        """Put the image of a row into its place, which `out` is a view of, with one sample."""
        out[0] = image

    def _read(self, starts, stops) -> list[bytes]:
        begin, end = int(starts[0]), int(stops[-1])
        buffer = bytearray(end - begin)
        self.file.read_into(self._start + begin, buffer)
        view = memoryview(buffer)
        return [bytes(view[start - begin : stop - begin]) for start, stop in zip(starts, stops, strict=True)]

    def _gather(self, starts, stops) -> list[bytes]:
        _check_size(self.file, self._start + int(stops.max()))
        begin = self._start
        return [self._memory[begin + start : begin + stop] for start, stop in zip(starts, stops, strict=True)]

    def _examine(self, row: int, image: bytes, checksum: int | None) -> None:
        if checksum is not None:
            if xxhash.xxh3_64_intdigest(image) != checksum:
                raise self.damaged(row, "differs from what was written (checksum)")
        elif problem := misshapen(image):
            raise self.damaged(row, problem)

    def damaged(self, row: int, what: str) -> UserError:
        """The error for a damaged image."""
        return damaged(self.where(row), what)


def misshapen(image: bytes) -> str | None:
    """What is wrong with the markers that a JPEG file begins and ends with; None if nothing is."""
    if not image.startswith(JPEG_START):
        return "does not begin as a JPEG file does"
    # Some writers append zeros.
    if not image.rstrip(b"\0").endswith(JPEG_END):
        return "does not end as a JPEG file does"
    return None


def damaged(where: str, what: str) -> UserError:
    """The error for a damaged image; where: its file and row."""
    return UserError(f"{where} {what}; `hpc-train verify` names all such images; fetch or write their files again")


class _Column:
    """A contiguous data set of 8-byte numbers, looked up in the file."""

    def __init__(self, file: File, at: int, count: int, dtype: str):
        self._file, self._stop = file, at + 8 * count
        memory = file.map()
        if memory is None:
            values = np.empty(count, dtype)
            file.read_into(at, values)
        else:
            _check_size(file, self._stop)
            values = np.frombuffer(memory, dtype, count, at)
        self._values, self._mapped = values, memory is not None

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        # Where a file has shrunk, reading the map beyond its end would kill the process with SIGBUS.
        if self._mapped:
            _check_size(self._file, self._stop)
        return self._values[rows]


def _check_size(file: File, needed: int) -> None:
    if (size := file.size_now()) < needed:
        raise OSError(f"the file ends at byte {size}, but its data end at byte {needed}")
