"""Text files that name images and classes."""

import os
from pathlib import Path

from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError


def list_lines(root, path) -> list[tuple[str, str, str]]:
    """(path of an image, its class, "file: line number" for messages) of each line of a list that is not blank.

    path: of the list, as given or below `root`. A line is a path, which may hold blanks, then blanks, then a class.
    """
    path = Path(path) if os.path.exists(path) else Path(root, path)
    lines = []
    for number, line in _numbered(path):
        parts = line.rsplit(None, 1)
        if len(parts) < 2:
            raise UserError(f"{path}: line {number} ({shown(line)!r}) is not a path and a class; mend it")
        lines.append((*parts, f"{path}: line {number}"))
    return lines


def class_lines(path) -> tuple[list[str], tuple[str, ...]]:
    """(folders' names, readable names) of the classes, a line each.

    The folder is what is before the first tab, or else the first word; its readable name is the rest, or the same.
    """
    names = {}
    for number, line in _numbered(Path(path)):
        folder, _, name = line.partition("\t" if "\t" in line else " ")
        if folder in names:
            raise UserError(f"{path}: line {number} names {shown(folder)} again; name every class once")
        names[folder] = shown(name.strip() or folder)
    return list(names), tuple(names.values())


def shown(name) -> str:
    """A file's name as text that can be printed in one line and stored; names may hold any byte."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\n", "\\n")


def _numbered(path):
    try:
        # Names of files may hold any byte.
        text = path.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); check the path") from error
    if "\0" in text:
        raise UserError(f"{path}: is not text; give another file")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise UserError(f"{path}: holds no lines; give another file")
    return lines
