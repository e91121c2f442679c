"""CIFAR-10 and CIFAR-100 from their python or binary archives (https://www.cs.toronto.edu/~kriz/cifar.html)."""

import io
import lzma
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.files.limits import open_packed
from hpc_train.prepare.sources import Source, download

_PIXELS = 3 * 32 * 32
_CIFAR10_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""


@dataclass(frozen=True)
class _Kind:
    title: str
    archive: str
    stems: tuple[str, ...]
    """Names of the python version's files, the test part last; the binary files' names also end in .bin."""
    label: bytes
    """Key of the labels in the python files."""
    label_bytes: int
    """Bytes before each binary image; the last of them is the label."""
    class_names: tuple[str, ...]


_KINDS = {
    "cifar10": _Kind(
        "CIFAR-10",
        "cifar-10",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
        b"labels",
        1,
        tuple(_CIFAR10_NAMES.split()),
    ),
    # In the binary files, the number of the superclass comes before that of the class.
    "cifar100": _Kind("CIFAR-100", "cifar-100", ("train", "test"), b"fine_labels", 2, tuple(_CIFAR100_NAMES.split())),
}


def cifar(name, path=None):
    """The data set "cifar10" or "cifar100" (fine labels): images (n, 32, 32, 3) uint8, labels (n,) uint8.

    Pickles cannot run code here: only NumPy arrays, lists and strings are loaded from them.

    Args:
        name: "cifar10" or "cifar100".
        path: the python or binary version, as .tar.gz or as the folder with its files; None: downloaded by Keras.

    Raises:
        UserError: the files cannot be read, or are not of this data set.
    """
    kind = _KINDS[name]
    if path is None:
        splits, where = download(name, "python or binary archive, or its folder,"), "downloaded by Keras"
    else:
        path = Path(path)
        files = _files(kind, path)
        parts = [_decode(kind, f"{path}: {file}", raw) for file, raw in files.items()]
        images, labels = ([part[place] for part in parts] for place in (0, 1))
        splits = {
            "train": (np.concatenate(images[:-1]), np.concatenate(labels[:-1])),
            "test": (images[-1], labels[-1]),
        }
        where = f"files of {path.resolve().name}"
    return Source(splits, len(kind.class_names), kind.class_names, f"{kind.title}, {where}")


def _files(kind, path):
    """{name: bytes} of all files of the python or of the binary version, in the order of the stems."""
    try:
        found = _in_folder(kind, path) if path.is_dir() else _in_archive(kind, path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the archive or its folder with --input") from error
    except (OSError, EOFError, RecursionError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        # About a first header, tarfile says only what is odd in it.
        odd = isinstance(error, tarfile.ReadError) and "data" not in str(error)
        why = "not a tar archive" if odd else reason(error)
        raise UserError(f"{path}: cannot be read as {kind.title} ({why}); fetch the archive again") from error
    versions = [[stem + ending for stem in kind.stems] for ending in ("", ".bin")]
    best = max(versions, key=lambda names: sum(name in found for name in names))
    missing = [name for name in best if name not in found]
    if missing:
        either = " or ".join(names[0] for names in versions)
        what = f"no {missing[0]}" if len(missing) < len(best) else f"does not hold {kind.title} (no {either})"
        raise UserError(
            f"{path}: {what}; give {kind.archive}-python.tar.gz, {kind.archive}-binary.tar.gz or its folder"
        )
    return {name: found[name] for name in best}


def _in_folder(kind, folder):
    for version in ("python", "binary"):
        archive = folder / f"{kind.archive}-{version}.tar.gz"
        if archive.is_file():
            return _in_archive(kind, archive)
    names = _wanted(kind)
    children = sorted(child for child in folder.glob(f"{kind.archive}*") if child.is_dir())
    return {
        name: (place / name).read_bytes() for place in (*children, folder) for name in names if (place / name).is_file()
    }


def _in_archive(kind, path):
    names = _wanted(kind)
    # As a stream: members that are not wanted are passed over, and count towards what may be unpacked.
    with open_packed(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        return {
            Path(member.name).name: archive.extractfile(member).read()
            for member in archive
            # Of a sparse one, a few bytes may claim any number of zeros.
            if member.isfile() and not member.issparse() and Path(member.name).name in names
        }


def _wanted(kind):
    return {stem + ending for stem in kind.stems for ending in ("", ".bin")}


def _decode(kind, where, raw):
    """(images, labels) of one file."""
    remedy = "fetch the archive again"
    if where.endswith(".bin"):
        row = kind.label_bytes + _PIXELS
        if not raw or len(raw) % row:
            raise UserError(f"{where}: {len(raw)} bytes are not a whole number of images of {row}; {remedy}")
        rows = np.frombuffer(raw, np.uint8).reshape(-1, row)
        pixels, labels = rows[:, kind.label_bytes :], rows[:, kind.label_bytes - 1]
    else:
        try:
            batch = _ArrayUnpickler(io.BytesIO(raw), encoding="bytes").load()
            pixels, labels = batch[b"data"].values, batch[kind.label]
            labels = labels.values if isinstance(labels, _Array) else np.array([int(label) for label in labels])
        # A damaged pickle may raise anything.
        except Exception as error:
            raise UserError(
                f"{where}: not a batch of {kind.title} ({type(error).__name__}: {reason(error)}); {remedy}"
            ) from error
        if pixels.shape != (len(labels), _PIXELS) or pixels.dtype != np.uint8 or labels.dtype.kind != "i":
            raise UserError(
                f"{where}: data of {pixels.shape} {pixels.dtype} with labels of {labels.shape} {labels.dtype} are not "
                f"images of {kind.title}; {remedy}"
            )
    outside = np.flatnonzero((labels < 0) | (labels >= len(kind.class_names)))
    if len(outside):
        raise UserError(
            f"{where}: image {outside[0]} has label {labels[outside[0]]}, not a class of {kind.title}; {remedy}"
        )
    # Stored plane by plane: all red values, then green, then blue.
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, labels.astype(np.uint8)


class _ArrayUnpickler(pickle._Unpickler):
    """Loads arrays of whole numbers, lists and strings; a pickle may otherwise run any code, or take any memory.

    NumPy's own classes would believe any type, shape and address. The C unpickler believes sizes as well.
    """

    # One allocates what it claims, the other has no buffers here.
    dispatch: ClassVar = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if bytes([code]) not in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER)
    }

    def find_class(self, module, name):
        known = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return known


class _Type:
    """A pickled type; of its state only the byte order counts."""

    def __init__(self, name, *_):
        self.dtype = np.dtype({"u1": "u1", "i1": "i1", "i4": "i4", "i8": "i8"}[_text(name)])

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(_text(state[1]))


class _Array:
    """A pickled array."""

    def __init__(self, *_):
        self.values = None

    def __setstate__(self, state):
        _, shape, kind, by_columns, raw = state
        self.values = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if by_columns else "C")


def _text(value):
    return value.decode("latin1") if isinstance(value, bytes) else value


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None.__class__,
    ("numpy", "dtype"): _Type,
    # Python 3 writes bytes so in protocol 2.
    ("_codecs", "encode"): lambda text, encoding: text.encode({"latin1": "latin1", b"latin1": "latin1"}[encoding]),
}
