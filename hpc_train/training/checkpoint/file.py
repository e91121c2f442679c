"""The HDF5 file of a checkpoint, or of a part of one: written from a copy in memory, checked, and loaded."""

import json
import re
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np

from hpc_train.data.hdf5.access import open_hdf5, reason
from hpc_train.errors import UserError
from hpc_train.files.seal import Damaged, check_seal, write_and_seal
from hpc_train.parallel.variables import everything, named
from hpc_train.training.checkpoint.state import Progress, State

# Without the seal of version 2, which may be missing from version 1 only; of version 3 are those in parts.
_UNSEALED, _SEALED, _IN_PARTS = 1, 2, 3
_TOKEN, _MOST = re.compile("[0-9a-f]{6}"), 100_000


def part_path(head: Path, token: str, number: int) -> Path:
    """The file of a part but the first, beside the file of the first part, `head`, that names the checkpoint."""
    return head.with_name(f"part-{head.stem.removeprefix('step-')}-{token}-{number}.h5")


def write(path: Path, state: State) -> None:
    """Write a copy to a new file with a seal, and wait until it is on disk.

    HDF5 writes the structure alone. The values follow without HDF5, whose lock would make readers of data wait.
    """
    places = []
    with open_hdf5(path, "w") as file:
        file.attrs["version"] = _SEALED if state.part.of == 1 else _IN_PARTS
        if state.part.number == 0:
            file.attrs["progress"] = state.progress
        if state.part.of > 1:
            file.attrs["parts"], file.attrs["token"] = state.part.of, state.part.token
        for i, value in enumerate(state.metrics):
            places.append((_room(file.require_group("metrics"), i, value), value))
        variables = file.create_group("variables")
        for i, (name, value) in state.variables.items():
            stored = _room(variables, i, _bits(value))
            stored.attrs["name"], stored.attrs["dtype"] = name, str(value.dtype)
            places.append((stored, value))
        pieces = [(room.id.get_offset(), value.reshape(-1).view("u1").data) for room, value in places if value.size]
    write_and_seal(path, pieces)


def load(path: Path, model) -> Progress:
    """Load a checkpoint, which is whole, into `model` and its optimizer, both built. One rank calls it.

    Raises:
        UserError: the file is of another model.
    """
    with ExitStack() as files:
        head = files.enter_context(h5py.File(path, "r", locking=False))
        progress, stored = _progress(head), dict(head["variables"])
        for part in _parts(path, head):
            stored |= files.enter_context(h5py.File(part, "r", locking=False))["variables"]
        variables = named(everything(model))
        if len(variables) != len(stored):
            raise UserError(
                f"{path} holds {len(stored)} variables, but the model and its optimizer have {len(variables)}; "
                "resume with the options of the first start (--model, --optimizer, --lag, --ema, --precision, ...)"
            )
        for i, (name, variable) in enumerate(variables):
            _restore(path, stored[f"{i:06d}"], name, variable)
    return progress


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None where it is whole.

    Raises:
        UserError: it is of a newer version, or the storage fails.
    """
    try:
        sealed = check_seal(path)
        with h5py.File(path, "r", locking=False) as file:
            version = int(file.attrs["version"])
            if sealed and version > _IN_PARTS:
                raise UserError(f"{path} is a checkpoint of a newer hpc-train; resume with that one")
            if not sealed and version != _UNSEALED:
                return "it was cut, or changed by another program"
            if not sealed:
                # Of an earlier version: whether HDF5 can read it is all that can be known.
                _progress(file)
                for stored in file["variables"].values():
                    np.dtype(_numpy_dtype(stored.attrs["dtype"]))
                    stored[()]
            return _damage_of_parts(_parts(path, file))
    except UserError:
        raise
    except Damaged as error:
        return str(error)
    # h5py raises many kinds of errors for damaged metadata.
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        # The operating system's errors say nothing about the file's bytes.
        if getattr(error, "errno", None):
            raise UserError(f"{path}: cannot be read ({reason(error)}); try again, or check its permissions") from error
        return " ".join(str(error).split())


def _damage_of_parts(parts: list[Path]) -> str | None:
    for part in parts:
        try:
            if not check_seal(part):
                return f"its part {part.name} was cut, or changed by another program"
        except FileNotFoundError:
            return f"its part {part.name} is missing"
        except Damaged as error:
            return f"of its part {part.name}: {error}"
    return None


def _parts(path: Path, head: h5py.File) -> list[Path]:
    """The files of the other parts."""
    token, count = str(head.attrs.get("token", "")), int(head.attrs.get("parts", 1))
    # No text of a file may lead to another folder, and no number fill the memory.
    if count > _MOST or (count > 1 and not _TOKEN.fullmatch(token)):
        raise ValueError("its parts have no name")
    return [part_path(path, token, number) for number in range(1, count)]


def _progress(file: h5py.File) -> Progress:
    progress = Progress(**json.loads(file.attrs["progress"]))
    progress.metrics = [file[f"metrics/{i:06d}"][()] for i in range(len(file.get("metrics", ())))]
    return progress


def _restore(path: Path, stored, name: str, variable) -> None:
    if stored.attrs["name"] != name or stored.shape != tuple(variable.shape):
        raise UserError(
            f"{path} holds {stored.attrs['name']} {stored.shape} where the model has {name} {tuple(variable.shape)}; "
            "resume with the options of the first start"
        )
    variable.assign(stored[()].view(np.dtype(_numpy_dtype(stored.attrs["dtype"]))))


def _room(group: h5py.Group, number: int, value: np.ndarray) -> h5py.Dataset:
    """A data set for these values in one piece of the file, which nothing has written yet."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind, space = h5py.h5t.py_create(value.dtype, logical=True), h5py.h5s.create_simple(value.shape)
    return h5py.Dataset(h5py.h5d.create(group.id, f"{number:06d}".encode(), kind, space, layout))


def _bits(value: np.ndarray) -> np.ndarray:
    # HDF5 has no bfloat16; its bits travel as integers.
    return value.view("uint16") if str(value.dtype) == "bfloat16" else value


def _numpy_dtype(name: str):
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return name
