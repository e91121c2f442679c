"""The other files that hold bytes of a data set: of links, of virtual data sets, and of external storage.

HDF5 itself fills what a missing source should have held with the fill value, and says nothing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import prod
from typing import Any

import h5py

from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.hdf5.contents import datasets_of
from hpc_train.data.hdf5.open_errors import unreadable
from hpc_train.files.hdf5 import external_links_of

# Links that lead to links; more go round in a circle.
_DEEPEST = 16
# Variables of HDF5 with folders to look in, for links and for virtual data sets.
_LINKS, _VIRTUAL = "HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX"


class MissingSource(OSError):
    """A source, or what a link points to, is not there; the message names it and what needs it."""


def sources(file: h5py.File, name: str) -> tuple[str, ...]:
    """Paths of the other files that hold bytes of a data set, as HDF5 finds them, each once.

    Raises:
        MissingSource: one of them, or the data set in it, is not there or holds less than is taken from it.
        KeyError: the file has nothing of this name.
    """
    found: dict[str, None] = {}
    _shape(file, name, found, 0)
    return tuple(found)


def outside(paths: Iterable[str], folders: Iterable[str]) -> str | None:
    """The first of the files that really lies in none of the folders; None where there is none."""
    inside = [os.path.join(os.path.realpath(folder), "") for folder in folders]
    return next((path for path in paths if not os.path.realpath(path).startswith(tuple(inside))), None)


def other_files(path: str) -> Iterator[tuple[str, str, str]]:
    """(words for what leads there, its name as written, path) of each other file that an HDF5 file takes bytes from.

    Those that are not there are left out, as is what lies behind them.
    """
    with open_hdf5(path) as file:
        named: list[tuple[str, str, str | None]] = []

        for name, link in external_links_of(file).items():
            named.append((f"{name} is a link to {link.path} in", link.filename, _located(link.filename, path, _LINKS)))
        for name, item in datasets_of(file).items():
            for written, _, _ in item.external or ():
                named.append((f"{name} has its bytes in", written, _raw_place(written, path)))
            for _, written, _, _ in _mappings(item) if item.is_virtual else ():
                if written != ".":
                    named.append((f"{name} is virtual, with a part in", written, _located(written, path, _VIRTUAL)))
    yield from ((what, written, place) for what, written, place in named if place and os.path.isfile(place))


def broken_link(file: h5py.File, name: str) -> str | None:
    """Where a name leads that is a link to nothing; None where it is no link, or leads to something."""
    try:
        sources(file, name)
    except MissingSource as missing:
        return str(missing)
    # h5py follows no link whose name is no UTF-8.
    except (KeyError, ValueError):
        pass
    return None


def _shape(file: h5py.File, name: str, found: dict[str, None], depth: int) -> tuple[int, ...]:
    """The shape of the data set `name`, once all that it leads to is found; KeyError where there is nothing."""
    if depth > _DEEPEST:
        raise MissingSource(f"{name.strip('/')} is a link that goes round in a circle; fix the link")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    at = file["/"]
    for number, part in enumerate(parts):
        link, here = at.get(part, getlink=True), "/".join(parts[: number + 1])
        rest = "/".join(parts[number + 1 :])
        if isinstance(link, h5py.ExternalLink):
            what = f"{here} is a link to {link.path} in {link.filename}"
            return _elsewhere(file, link.filename, f"{link.path}/{rest}", what, _LINKS, found, depth)
        if isinstance(link, h5py.SoftLink):
            target = link.path if link.path.startswith("/") else f"{at.name}/{link.path}"
            try:
                return _shape(file, f"{target}/{rest}", found, depth + 1)
            except KeyError as error:
                raise MissingSource(f"{here} is a link to {link.path}, which is not there; fix the link") from error
        at = at[part]
        if not isinstance(at, h5py.Group) and rest:
            raise KeyError(name)
    if isinstance(at, h5py.Dataset):
        if at.external:
            _check_external(file, at, found)
        for what, where, dataset, mapping in _mappings(at) if at.is_virtual else ():
            shape = _elsewhere(file, where, dataset, what, _VIRTUAL, found, depth)
            if _lacks(mapping, shape):
                raise MissingSource(
                    f"{what}, which is {shape} and lacks a part of what is taken from it; write it again"
                )
        return at.shape or ()
    raise KeyError(name)


def _elsewhere(file: h5py.File, where: str, name: str, what: str, variable: str, found, depth) -> tuple[int, ...]:
    """The shape of a data set in the file called `where`; what: the words for what leads there."""
    try:
        if where == ".":
            return _shape(file, name, found, depth + 1)
        path = _located(where, file.filename, variable)
        if path is None:
            beside = os.path.join(os.path.dirname(os.path.abspath(file.filename)), where)
            raise MissingSource(f"{what}, and there is no {beside}; put the file there, or write the data set again")
        with open_hdf5(path) as other:
            found[path] = None
            return _shape(other, name, found, depth + 1)
    except MissingSource:
        raise
    except KeyError as error:
        raise MissingSource(f"{what}, which has no such data set; fix it or write the data set again") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise MissingSource(f"{what}, but {unreadable(path, error)}") from error


def _located(name: str, base: str, variable: str) -> str | None:
    """Where HDF5 finds the file `name` that the file `base` names, absolute; None where it does not."""
    if os.path.isabs(name) and os.path.isfile(name):
        return os.path.normpath(name)
    inside = os.path.basename(name) if os.path.isabs(name) else name
    beside = os.path.dirname(os.path.abspath(base))
    prefixes = filter(None, os.environ.get(variable, "").split(":"))
    folders = [folder.replace("${ORIGIN}", beside) for folder in prefixes]
    for folder in (*folders, beside, os.getcwd(), os.path.dirname(os.path.realpath(base))):
        path = os.path.normpath(os.path.join(folder, inside))
        if os.path.isfile(path):
            return path
    return None


def _raw_place(name: str, base: str) -> str:
    """Where HDF5 looks for the file `name` of external storage: from the current folder on, if nothing else is set."""
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "")
    folder = prefix.replace("${ORIGIN}", os.path.dirname(os.path.abspath(base)))
    return os.path.normpath(os.path.join(os.getcwd(), folder, name))


def _mappings(dataset: h5py.Dataset) -> Iterator[tuple[str, str, str, Any]]:
    """(words for it, file, data set, h5py's mapping) of each source of a virtual data set."""
    own = dataset.name.lstrip("/")
    for mapping in dataset.virtual_sources():
        counted = "%b" in mapping.file_name.replace("%%", "") + mapping.dset_name.replace("%%", "")
        for block in range(_blocks(mapping.vspace, dataset.shape) if counted else 1):
            names = mapping.file_name, mapping.dset_name
            where, name = (text.replace("%b", str(block)).replace("%%", "%") for text in names)
            what = f"{own} is virtual, and takes {name} in {where}" if where != "." else f"{own} takes {name}"
            yield what, where, name, mapping


def _lacks(mapping, shape: tuple[int, ...]) -> bool:
    """Whether a source of this shape holds less than the mapping takes."""
    with suppress(ValueError, RuntimeError):
        ends = mapping.src_space.get_select_bounds()[1]
        return len(ends) > len(shape) or any(end >= extent for end, extent in zip(ends, shape, strict=False))
    # All of the source; for a selection without end, HDF5 counts no points.
    with suppress(RuntimeError):
        return prod(shape) < mapping.vspace.get_select_npoints()
    return False


def _blocks(space: h5py.h5s.SpaceID, shape: tuple[int, ...]) -> int:
    """How many sources, numbered from 0, fill the blocks of a selection without end."""
    start, stride, count, _ = space.get_regular_hyperslab()
    axis = next((axis for axis, number in enumerate(count) if number >= h5py.h5s.UNLIMITED), 0)
    return max(1, -(-(shape[axis] - int(start[axis])) // int(stride[axis])))


def _check_external(file: h5py.File, dataset: h5py.Dataset, found: dict[str, None]) -> None:
    """Find the files of external storage: HDF5 takes what lies beyond their ends as 0."""
    own, left = dataset.name.lstrip("/"), prod(dataset.shape) * dataset.id.get_type().get_size()
    for name, offset, size in dataset.external:
        path = _raw_place(name, file.filename)
        part = min(left, size)
        left -= part
        if not os.path.isfile(path):
            raise MissingSource(
                f"{own} has its bytes in {name}, and there is no {path}; put it there, or if it lies beside the file, "
                "set HDF5_EXTFILE_PREFIX='${ORIGIN}'"
            )
        held = os.path.getsize(path)
        if held < offset + part:
            raise MissingSource(f"{own} has its bytes in {path}, which ends at byte {held}, not {offset + part}")
        found[path] = None
