"""The other files that hold bytes of a data set: of links, of virtual data sets, and of external storage.

HDF5 itself fills what a missing source should have held with the fill value, and says nothing.
"""

import os
from collections.abc import Iterator
from math import prod

import h5py

from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.hdf5.open_errors import unreadable

# Links that lead to links; more go round in a circle.
_DEEPEST = 16


class Missing(OSError):
    """A source, or what a link points to, is not there; the message names it and what needs it."""


def sources(file: h5py.File, name: str) -> tuple[str, ...]:
    """Paths of the other files that hold bytes of a data set, as HDF5 finds them, each once.

    Raises:
        Missing: one of them, or the data set in it, is not there or holds less than is taken from it.
        KeyError: the file has nothing of this name.
    """
    found: dict[str, None] = {}
    _shape(file, name, found, 0)
    return tuple(found)


def broken_link(file: h5py.File, name: str) -> str | None:
    """Where a name leads that is a link to nothing; None where it is no link, or leads to something."""
    try:
        sources(file, name)
    except Missing as missing:
        return str(missing)
    except KeyError:
        pass
    return None


def _shape(file: h5py.File, name: str, found: dict[str, None], depth: int) -> tuple[int, ...]:
    """The shape of the data set `name`, once all that it leads to is found; KeyError where there is nothing."""
    if depth > _DEEPEST:
        raise Missing(f"{name.strip('/')} is a link that goes round in a circle; fix the link")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    at = file["/"]
    for number, part in enumerate(parts):
        link, here = at.get(part, getlink=True), "/".join(parts[: number + 1])
        rest = "/".join(parts[number + 1 :])
        if isinstance(link, h5py.ExternalLink):
            what = f"{here} is a link to {link.path} in {link.filename}"
            return _elsewhere(file, link.filename, f"{link.path}/{rest}", what, found, depth)
        if isinstance(link, h5py.SoftLink):
            target = link.path if link.path.startswith("/") else f"{at.name}/{link.path}"
            try:
                return _shape(file, f"{target}/{rest}", found, depth + 1)
            except KeyError as error:
                raise Missing(f"{here} is a link to {link.path}, which is not there; fix the link") from error
        at = at[part]
        if not isinstance(at, h5py.Group) and rest:
            raise KeyError(name)
    if isinstance(at, h5py.Dataset):
        if at.external:
            _check_external(file, at, found)
        for what, where, dataset, needed in _mappings(at) if at.is_virtual else ():
            shape = _elsewhere(file, where, dataset, what, found, depth)
            if any(end > extent for end, extent in zip(needed, shape, strict=False)) or len(needed) > len(shape):
                raise Missing(f"{what}, which is {shape} and lacks a part of what is taken from it; write it again")
        return at.shape or ()
    raise KeyError(name)


def _elsewhere(file: h5py.File, where: str, name: str, what: str, found, depth: int) -> tuple[int, ...]:
    """The shape of a data set in the file called `where`; what: the words for what leads there."""
    try:
        if where == ".":
            return _shape(file, name, found, depth + 1)
        path = _located(where, file.filename, ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX"))
        if path is None:
            beside = os.path.join(os.path.dirname(os.path.abspath(file.filename)), where)
            raise Missing(f"{what}, and there is no {beside}; put the file there, or write the data set again")
        with open_hdf5(path) as other:
            found[path] = None
            return _shape(other, name, found, depth + 1)
    except Missing:
        raise
    except KeyError as error:
        raise Missing(f"{what}, which has no such data set; fix it or write the data set again") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise Missing(f"{what}, but {unreadable(path, error)}") from error


def _located(name: str, base: str, variables: tuple[str, ...]) -> str | None:
    """Where HDF5 finds the file `name` that the file `base` names, absolute; None where it does not."""
    if os.path.isabs(name) and os.path.exists(name):
        return os.path.normpath(name)
    inside = os.path.basename(name) if os.path.isabs(name) else name
    beside = os.path.dirname(os.path.abspath(base))
    prefixes = [folder for variable in variables for folder in os.environ.get(variable, "").split(":") if folder]
    folders = [folder.replace("${ORIGIN}", beside) for folder in prefixes]
    for folder in (*folders, beside, os.getcwd(), os.path.dirname(os.path.realpath(base))):
        path = os.path.normpath(os.path.join(folder, inside))
        if os.path.exists(path):
            return path
    return None


def _mappings(dataset: h5py.Dataset) -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
    """(words for it, file, data set, the shape that the data set needs at least) of each source of a virtual one."""
    own = dataset.name.lstrip("/")
    for mapping in dataset.virtual_sources():
        needed = _ends(mapping.src_space)
        counted = "%b" in mapping.file_name.replace("%%", "") + mapping.dset_name.replace("%%", "")
        for block in range(_blocks(mapping.vspace, dataset.shape) if counted else 1):
            names = mapping.file_name, mapping.dset_name
            where, name = (text.replace("%b", str(block)).replace("%%", "%") for text in names)
            what = f"{own} is virtual, and takes {name} in {where}" if where != "." else f"{own} takes {name}"
            yield what, where, name, needed


def _ends(space: h5py.h5s.SpaceID) -> tuple[int, ...]:
    """The shape that a selection needs at least; () where it takes all there is, or has no end."""
    try:
        return tuple(int(last) + 1 for last in space.get_select_bounds()[1])
    except (ValueError, RuntimeError):
        return ()


def _blocks(space: h5py.h5s.SpaceID, shape: tuple[int, ...]) -> int:
    """How many sources, numbered from 0, fill the blocks of a selection without end."""
    start, stride, count, _ = space.get_regular_hyperslab()
    axis = next((axis for axis, number in enumerate(count) if number >= h5py.h5s.UNLIMITED), 0)
    return max(1, -(-(shape[axis] - int(start[axis])) // int(stride[axis])))


def _check_external(file: h5py.File, dataset: h5py.Dataset, found: dict[str, None]) -> None:
    """Find the files of external storage: HDF5 takes what lies beyond their ends as 0."""
    own, left = dataset.name.lstrip("/"), prod(dataset.shape) * dataset.id.get_type().get_size()
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "")
    folder = prefix.replace("${ORIGIN}", os.path.dirname(os.path.abspath(file.filename)))
    for name, offset, size in dataset.external:
        path = os.path.normpath(os.path.join(os.getcwd(), folder, name))
        part = min(left, size)
        left -= part
        if not os.path.exists(path):
            raise Missing(
                f"{own} has its bytes in {name}, and there is no {path}; put it there, or if it lies beside the file, "
                "set HDF5_EXTFILE_PREFIX='${ORIGIN}'"
            )
        held = os.path.getsize(path)
        if held < offset + part:
            raise Missing(f"{own} has its bytes in {path}, which ends at byte {held}, not {offset + part}")
        found[path] = None
