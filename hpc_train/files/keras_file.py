"""Keras files that others may have written: what they claim and name is checked before Keras builds anything of it."""

import io
import json
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import h5py

from hpc_train.errors import UserError
from hpc_train.files.hdf5 import claim_of, external_links_of, objects
from hpc_train.files.limits import most_bytes
from hpc_train.units import MIB, size

_CONFIG, _WEIGHTS, _NPZ = "config.json", "model.weights.h5", "model.weights.npz"
# The largest networks of keras.applications have 2 MiB of configuration, 20 levels and 10,000 objects.
_MOST_TEXT, _DEEPEST, _MOST_OBJECTS = 16 * MIB, 128, 50_000
# Levels times bytes: an error of Keras quotes the configuration once for each level that it leaves.
_MOST_QUOTED = 256 * MIB
_DEEPEST_GROUP = 64
# Packages of the Keras project, from which Keras itself imports layers.
_KERAS = ("keras", "keras_hub", "keras_cv", "keras_nlp")
# Layers that are made of code or of other files.
_FOREIGN = {
    "__lambda__": "Python code (a lambda)",
    "TFSMLayer": "another file with a TensorFlow program",
    "TorchModuleWrapper": "a pickled program of PyTorch",
    "JaxLayer": "a program of JAX",
    "FlaxLayer": "a program of JAX",
}
_VOCABULARY = "vocabulary"
# What zipfile, its decoders, h5py and json raise for damage.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    LookupError,
    TypeError,
    ValueError,
)


@contextmanager
def checked(path: Path, own: Iterable[str] = (), weights_only: bool = False, compiled: bool = False) -> Iterator[None]:
    """Check a Keras file; in the `with` block Keras may then load it, and makes no more weights than the file holds.

    Args:
        path: a .keras, .h5 or .weights.h5 file.
        own: names of classes and functions of the user's own that are handed to Keras; those registered with Keras are
            known too.
        weights_only: Keras takes only the weights, and builds nothing.
        compiled: Keras takes the loss, metrics and optimizer too.

    Raises:
        UserError: the file is damaged, claims more than it can hold, or its model is made of code or of other files.
    """
    try:
        held, configs = _archive(path) if path.suffix == ".keras" else _legacy(path, compiled)
        for config in () if weights_only else configs:
            _check_config(path, config, frozenset(own), compiled)
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{path}: {_nested()}") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: is damaged, or no Keras file ({reason}); save the model again") from error
    with _no_more_weights(path, held):
        yield


def _archive(path: Path) -> tuple[int, list[bytes]]:
    """(bytes of all weights, configuration) of a .keras file."""
    stored = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        _check_members(path, archive, stored)
        names = archive.namelist()
        if _CONFIG not in names:
            raise UserError(f"{path}: has no {_CONFIG}, so it is no Keras file; save the model with model.save")
        if (length := archive.getinfo(_CONFIG).file_size) > _MOST_TEXT:
            raise UserError(f"{path}: {_CONFIG} of {size(length)}; a network has at most {size(_MOST_TEXT)}")
        config = archive.read(_CONFIG)
        if _NPZ in names and _WEIGHTS not in names:
            weights = archive.read(_NPZ)
            with zipfile.ZipFile(io.BytesIO(weights)) as arrays:
                _check_members(path, arrays, len(weights))
                return sum(member.file_size for member in arrays.infolist()), [config]
        with h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file:
            return _check_weights(f"{path}: {_WEIGHTS}", file), [config]


def _check_members(path: Path, archive: zipfile.ZipFile, stored: int) -> None:
    """UserError for members that unpack to far more than the file, or have names that lead out of it."""
    members = archive.infolist()
    if (total := sum(member.file_size for member in members)) > most_bytes(stored):
        raise UserError(f"{path}: {size(stored)} unpack to {size(total)}, which is no saved model; save it again")
    seen: set[str] = set()
    for member in members:
        name, parts = member.filename, member.filename.replace("\\", "/").split("/")
        link = stat.S_ISLNK(member.external_attr >> 16)
        if name in seen or link or ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise UserError(f"{path}: its member {name[:80]!r} leads out of it or is there twice; do not use it")
        seen.add(name)


def _legacy(path: Path, compiled: bool) -> tuple[int, list[bytes]]:
    """(bytes of all weights, configurations) of an .h5 or .weights.h5 file."""
    # HDF5 itself would lock it.
    with open(path, "rb") as raw, h5py.File(raw, "r") as file:
        held = _check_weights(str(path), file)
        names = ("model_config", "training_config") if compiled else ("model_config",)
        found = {name: file.attrs[name] for name in names if name in file.attrs}
    configs = []
    for name, config in found.items():
        configs.append(config.encode() if isinstance(config, str) else config)
        if not isinstance(configs[-1], bytes):
            raise UserError(f"{path}: its {name} is no text; save the model again")
        if len(config) > _MOST_TEXT:
            raise UserError(f"{path}: {name} of {size(len(config))}; a network has at most {size(_MOST_TEXT)}")
    return held, configs


def _check_weights(where: str, file: h5py.File) -> int:
    """Bytes of all data sets; UserError where they claim too much or lie in other files."""
    total = 0
    # Where a group cannot be listed, Keras might still open what it holds by its name.
    for name, item in objects(file, left_out=()):
        if name.count("/") >= _DEEPEST_GROUP:
            raise UserError(f"{where}: has groups {_DEEPEST_GROUP} deep, which no saved model has; save it again")
        if isinstance(item, h5py.Dataset):
            total += _bytes_of(where, name, item)
    for name, link in external_links_of(file, left_out=()).items():
        raise UserError(f"{where}: {name} is in another file, {link.filename}; do not use it")
    if total > most_bytes(held := file.id.get_filesize()):
        raise UserError(f"{where}: {size(held)} claim to be weights of {size(total)}; save the model again")
    return total


def _bytes_of(where: str, name: str, dataset: h5py.Dataset) -> int:
    if dataset.is_virtual or dataset.external:
        other = dataset.external[0][0] if dataset.external else dataset.virtual_sources()[0].file_name
        raise UserError(f"{where}: the values of {name} are in another file, {other}; do not use it")
    if claim := claim_of(dataset, rows=True):
        raise UserError(f"{where}: {name}: {claim}; save the model again")
    return prod(dataset.shape or ()) * dataset.dtype.itemsize


def _check_config(path: Path, text: bytes, own: frozenset[str], compiled: bool) -> None:
    """UserError for a network that is nested too deeply, is too large, or is made of what is not Keras's."""
    config = json.loads(text)
    if isinstance(config, dict) and not compiled:
        config.pop("compile_config", None)
    count, left = 0, [(config, 1)]
    while left:
        part, depth = left.pop()
        if depth > _DEEPEST or depth * len(text) > _MOST_QUOTED:
            raise UserError(f"{path}: {_nested()}")
        if isinstance(part, dict) and "class_name" in part:
            count += 1
            if count > _MOST_OBJECTS:
                raise UserError(f"{path}: its network has more than {_MOST_OBJECTS} parts; do not use it")
            _check_object(path, part, own)
        inside = part.values() if isinstance(part, dict) else part
        left += [(one, depth + 1) for one in inside if isinstance(one, (dict, list))]


def _check_object(path: Path, part: dict, own: frozenset[str]) -> None:
    kind, module, registered = part["class_name"], part.get("module"), part.get("registered_name")
    content = part.get("config")
    of_code = kind == "Lambda" and isinstance(content, dict) and isinstance(content.get("function"), list)
    if what := _FOREIGN.get("__lambda__" if of_code else str(kind)):
        raise UserError(
            f"{path}: its network contains {what}, which is never run; write that part as a layer of your own, "
            "registered with @keras.saving.register_keras_serializable(), and save the model again"
        )
    if isinstance(content, dict) and isinstance(content.get(_VOCABULARY), str):
        raise UserError(
            f"{path}: its layer {str(kind)[:80]} names another file, {content[_VOCABULARY]!r:.200}; save the model "
            "with the words themselves"
        )
    package = str(module).partition(".")[0]
    if module is not None and package not in (*_KERAS, "builtins") and not _known((registered, kind, content), own):
        raise UserError(
            f"{path} cannot be loaded: its {str(kind)[:80]!r} is of {str(module)[:80]!r}, which is not imported for a "
            "file; classes of your own need @keras.saving.register_keras_serializable(), and their file: give it with "
            "--script to predict, or hand them to hvd.load_model as custom_objects"
        )


def _known(names: tuple, own: frozenset[str]) -> bool:
    """Whether one of the names is a class or function of the user's own, registered with Keras or handed to it."""
    import keras

    texts = [name for name in names if isinstance(name, str)]
    return any(name in own or keras.saving.get_registered_object(name) is not None for name in texts)


def _nested() -> str:
    return f"its configuration is nested more than {_DEEPEST} levels deep, or too large for that; do not use it"


@contextmanager
def _no_more_weights(path: Path, held: int) -> Iterator[None]:
    """Let Keras make variables up to what a file holds, in the widest type: a configuration may claim any size."""
    import keras

    left, make = most_bytes(0) + 8 * held, keras.Variable.__init__

    def counted(self, initializer, shape=None, dtype=None, *args, **kwargs):
        nonlocal left
        left -= prod(extent or 0 for extent in shape or ()) * 4
        if left < 0:
            raise UserError(
                f"{path}: its network asks for weights {tuple(shape or ())}, but the file holds {size(held)} of "
                "weights in all; save the model again"
            )
        make(self, initializer, shape, dtype, *args, **kwargs)

    keras.Variable.__init__ = counted
    try:
        yield
    finally:
        keras.Variable.__init__ = make
