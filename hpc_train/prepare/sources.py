"""The sources of samples that `hpc-train prepare` turns into shards."""

import gzip
import io
import lzma
import socket
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.files.limits import most_bytes, open_packed
from hpc_train.prepare.npz import reading_npz
from hpc_train.prepare.splits import held_out

DIGIT_NAMES = tuple("0123456789")
FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_SPLIT_SEED = 1797
_CONNECT_SECONDS = 20


@dataclass(frozen=True)
class Source:
    """A data set in memory.

    Args:
        splits: "train" and "test", each (inputs (n, ...), targets (n,)).
        classes: number of classes.
        class_names: empty where they are not known.
        provenance: where the data came from, in a few words.
    """

    splits: dict
    classes: int
    class_names: tuple[str, ...]
    provenance: str


def digits():
    """Scikit-learn's 1797 handwritten digits: (8, 8, 1) uint8 scaled to 0..255, a fifth of them for testing.

    Raises:
        UserError: scikit-learn cannot be imported.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        how = "run `pip install scikit-learn`, or prepare mnist or fashion-mnist"
        raise UserError(f"digits: they come with scikit-learn, which cannot be imported ({error}); {how}") from error
    bunch = load_digits()
    inputs = np.rint(bunch.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    splits = stratified_split(inputs, bunch.target.astype(np.uint8), 0.2)
    return Source(splits, 10, DIGIT_NAMES, "scikit-learn load_digits (UCI optical recognition of digits)")


def mnist(path=None):
    """MNIST from a folder of IDX files or an npz file at `path`; without a path, Keras downloads it."""
    return _image_set("mnist", path, DIGIT_NAMES)


def fashion_mnist(path=None):
    """Fashion-MNIST from `path` (as for MNIST), else from Debian's package, else downloaded by Keras."""
    if path is None and DEBIAN_FASHION_MNIST.is_dir():
        path = DEBIAN_FASHION_MNIST
    return _image_set("fashion_mnist", path, FASHION_NAMES)


def idx(folder):
    """A folder with MNIST's four IDX files, gzipped or not: images (n, h, w, 1) uint8, labels uint8."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give the folder of the IDX files with --input")
    splits = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images_path = _find_idx(folder, f"{prefix}-images", 3)
        labels_path = _find_idx(folder, f"{prefix}-labels", 1)
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise UserError(
                f"{images_path}: holds {len(images)} images, but {labels_path.name} holds {len(labels)} labels; "
                "take both files from the same data set"
            )
        splits[split] = images[..., np.newaxis], labels
    return Source(splits, _count_classes(splits), (), f"IDX files in {folder.resolve().name}")


def npz(path, keys=NPZ_KEYS, test_fraction=None):
    """The arrays of an npz file.

    Inputs (n, h, w) become (n, h, w, 1) and float64 becomes float32; targets (n, 1) become (n,).

    Args:
        path: of the file.
        keys: names of the train inputs and targets, then of the test inputs and targets.
        test_fraction: for a file without a test part: the share of its samples to use as one.

    Raises:
        UserError: the file cannot be read, lacks an array, or has no class number for each input.
    """
    path = Path(path)
    with reading_npz(path) as file:
        present = set(file.files)
        only_train = present.isdisjoint(keys[2:])
        keys = keys[:2] if only_train else keys
        missing = [key for key in keys if key not in present]
        if missing:
            raise UserError(
                f"{path}: has no array {missing[0]!r}, only {', '.join(sorted(present)) or 'none'}; "
                "name the arrays with --keys"
            )
        if only_train and test_fraction is None:
            raise UserError(f"{path}: has no test part; give --test-fraction, for example 0.2")
        if not only_train and test_fraction is not None:
            raise UserError(f"{path}: already has a test part; leave out --test-fraction")
        arrays = [file[key] for key in keys]
    inputs, targets = [_as_inputs(x) for x in arrays[::2]], [_as_targets(y) for y in arrays[1::2]]
    for x, y, key in zip(inputs, targets, keys[1::2], strict=True):
        if x.ndim < 1 or y.ndim != 1 or len(x) != len(y) or y.dtype.kind not in "ui":
            raise UserError(
                f"{path}: {key} is {y.shape} {y.dtype} for inputs {x.shape}; give one integer class number "
                "for each input"
            )
    if only_train:
        splits = stratified_split(inputs[0], targets[0], test_fraction)
    else:
        splits = {"train": (inputs[0], targets[0]), "test": (inputs[1], targets[1])}
    return Source(splits, _count_classes(splits), (), f"arrays of {path.name}")


def stratified_split(inputs, targets, test_fraction):
    """Split samples into {"train": ..., "test": ...}, with the given share of every class in the test part.

    The same samples are always split in the same way. Within each part they keep their order.

    Raises:
        UserError: a part would be empty.
    """
    testing = held_out(targets, test_fraction, _SPLIT_SEED)
    return {"train": (inputs[~testing], targets[~testing]), "test": (inputs[testing], targets[testing])}


def read_idx(path, dimensions):
    """The array of unsigned bytes with `dimensions` axes in an IDX file, gzipped or not.

    Format: http://yann.lecun.com/exdb/mnist.

    Raises:
        UserError: the file is not such an IDX file.
    """
    path, remedy = Path(path), "fetch the file again"
    try:
        with open_packed(path) as file:
            shape = _idx_shape(path, file, dimensions)
            header, needed = 4 + 4 * dimensions, prod(shape)
            stored = path.stat().st_size
            packed = not isinstance(file.raw, io.FileIO)
            if packed and header + needed > most_bytes(stored):
                raise UserError(f"{path}: {stored} packed bytes cannot be the {shape} of its header; {remedy}")
            if packed or header + needed == stored:
                values = np.empty(needed, np.uint8)
                stored = header + file.readinto(values) + len(file.read())
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: damaged or truncated gzip file ({error}); {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); check the path and permissions") from error
    if stored != header + needed:
        what = "truncated" if stored < header + needed else "too long"
        raise UserError(f"{path}: {what}: {stored} bytes, but its header {shape} needs {header + needed}; {remedy}")
    return values.reshape(shape)


def _idx_shape(path, file, dimensions: int) -> tuple[int, ...]:
    """The lengths in the header of an IDX file of unsigned bytes, which must have so many dimensions."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0":
        raise UserError(f"{path}: not an IDX file (it begins with {start.hex() or 'nothing'}); fetch the file again")
    if start[2] != 0x08:
        raise UserError(f"{path}: IDX type 0x{start[2]:02x}, not unsigned bytes (0x08); convert it to an npz file")
    if start[3] != dimensions:
        raise UserError(f"{path}: has {start[3]} dimensions instead of {dimensions}; do not swap images and labels")
    lengths = file.read(4 * dimensions)
    if len(lengths) < 4 * dimensions:
        raise UserError(f"{path}: truncated within its header of {4 + 4 * dimensions} bytes; fetch the file again")
    return tuple(np.frombuffer(lengths, ">u4").tolist())


def _image_set(name, path, class_names):
    if path is None:
        splits = download(name, "folder with its IDX files, or its npz file,")
        source = Source(splits, 10, class_names, "downloaded by Keras")
    elif Path(path).is_file():
        source = npz(path)
    else:
        source = idx(path)
    return Source(source.splits, 10, class_names, f"{name.replace('_', '-')}, {source.provenance}")


def download(name, remedy):
    """The splits of `keras.datasets.NAME`, downloaded by Keras.

    Args:
        name: of the data set in Keras.
        remedy: the input to give where there is no network, for the message.

    Raises:
        UserError: the download failed.
    """
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    # Keras raises a bare Exception when the download fails.
    except Exception as error:
        raise UserError(
            f"{name.replace('_', '-')}: Keras could not download it ({reason(error)}); without a network, give a "
            f"{remedy} with --input"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return {
        "train": (_as_inputs(x_train), _as_targets(y_train)),
        "test": (_as_inputs(x_test), _as_targets(y_test)),
    }


def _find_idx(folder, stem, dimensions):
    names = [f"{stem}{separator}idx{dimensions}-ubyte{ending}" for separator in "-." for ending in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: no {names[0]} or {names[1]}; give the folder of the IDX files with --input")


def _as_inputs(array):
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return array[..., np.newaxis] if array.ndim == 3 else array


def _as_targets(array):
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _count_classes(splits):
    return 1 + max((int(targets.max()) for _, targets in splits.values() if targets.size), default=0)
