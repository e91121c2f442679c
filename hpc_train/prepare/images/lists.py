"""Text files that list images and classes."""

import os
from pathlib import Path

from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError


def list_lines(root, path) -> list[tuple[str, str, str]]:
    """The lines of a list that are not blank: each a path, which may hold blanks, then blanks, then a class.

    In a line with several tabs, what follows the class, such as a box, does not count.

    Args:
        root: the input folder.
        path: of the list, as given or below `root`.

    Returns:
        For each line: path of the image, its class, and "file: line number" for messages.

    Raises:
        UserError: the list cannot be read, or a line has no class.
    """
    path = Path(path) if os.path.exists(path) else Path(root, path)
    lines = []
    for number, line in _numbered(path):
        columns = line.split("\t")
        parts = columns[:2] if len(columns) > 2 else line.rsplit(None, 1)
        if len(parts) < 2:
            raise UserError(f"{path}: line {number} ({shown(line)!r}) is not a path and a class; fix the line")
        lines.append((*parts, f"{path}: line {number}"))
    return lines


def class_lines(path) -> tuple[list[str], tuple[str, ...]]:
    """The classes that a file lists, one in each line: the name of a folder, then a readable name if there is one.

    The folder's name ends at the first tab, or at the first blank if the line has no tab.

    Returns:
        The folders' names and the readable names; without a readable name, the folder's name stands for it.

    Raises:
        UserError: the file cannot be read, or a class is in it twice.
    """
    names = {}
    for number, line in _numbered(Path(path)):
        folder, _, name = line.partition("\t" if "\t" in line else " ")
        if folder in names:
            raise UserError(f"{path}: line {number} repeats the class {shown(folder)}; name every class once")
        names[folder] = shown(name.strip() or folder)
    return list(names), tuple(names.values())


def shown(name) -> str:
    """A file's name, which may hold any byte, as one line of text that can be printed and stored."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\n", "\\n")


def _numbered(path):
    try:
        # Names of files may hold any byte, not only UTF-8.
        text = path.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); check the path") from error
    if "\0" in text:
        raise UserError(f"{path}: is not text; give another file")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise UserError(f"{path}: is empty; give another file")
    return lines
