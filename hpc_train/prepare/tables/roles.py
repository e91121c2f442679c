"""Which column of a table is an input, a target or a category, and which is left out."""

from collections import Counter
from dataclasses import dataclass

from hpc_train.errors import UserError
from hpc_train.prepare.tables.options import TableOptions, flat
from hpc_train.prepare.tables.values import is_number


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are for.

    Args:
        header: the names of all columns.
        inputs: names of the input columns, in the order of the file.
        targets: names of the columns to predict.
        texts: those columns that hold categories, classes or names of splits.
        used: the columns to read: inputs, targets, then the column of the split if there is one.
    """

    header: tuple[str, ...]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    texts: frozenset[str]
    used: tuple[str, ...]


def assign(path: str, header: list[str], options: TableOptions) -> Roles:
    """Find the role of each column.

    Args:
        path: of the file with this header, for messages.
        header: the names of its columns.

    Raises:
        UserError: a name that an option gives is not in the header, or is given twice; two columns have one name; no
            column is left as input.
    """
    check_header(path, header)
    targets = flat(options.target) or (options.class_target,)
    split = () if options.split_column is None else (options.split_column,)
    categories, drop = flat(options.categories), flat(options.drop)
    given = [*targets, *split, *categories, *drop]
    for name in given:
        if name not in header:
            raise UserError(f"{path}: has no column {name!r}; its columns are {listed(header)}")
        if given.count(name) > 1:
            raise UserError(f"column {name!r} is named twice on the command line; give each column one use")
    inputs = tuple(name for name in header if name not in {*targets, *split, *drop})
    if not inputs:
        raise UserError(f"{path}: no column is left as input ({listed(header)}); drop fewer columns")
    index = next((name for name in inputs if not name or name.startswith("__index_level_")), None)
    if index is not None:
        what = f"column {index}" if index else f"column {header.index(index) + 1}, which has no name,"
        drop = f"--drop {index or repr(index)}"
        raise UserError(f"{path}: {what} seems to be pandas's index, not an input; leave it out with {drop}")
    texts = frozenset((*categories, *split, *((options.class_target,) if options.class_target else ())))
    return Roles(tuple(header), inputs, targets, texts, (*inputs, *targets, *split))


def check_header(path: str, header: list[str]) -> None:
    """UserError unless each column has a name of its own."""
    if all(map(is_number, header)):
        raise UserError(
            f"{path}: the first line is {listed(header)}: numbers, not names of columns; add a line of names"
            " or give them with --columns"
        )
    name, times = Counter(header).most_common(1)[0]
    if times > 1:
        which = f"are named {name!r}" if name else "have no name"
        raise UserError(f"{path}: {times} columns {which}; give each column a name of its own")


def check_same(path: str, header: list[str], first: str, roles: Roles) -> None:
    """UserError unless a further file has the columns of the first, in any order."""
    check_header(path, header)
    lacks, more = set(roles.header) - set(header), set(header) - set(roles.header)
    if lacks or more:
        what = " and ".join(
            f"{verb} {listed(sorted(names))}" for verb, names in (("lacks", lacks), ("also has", more)) if names
        )
        raise UserError(f"{path}: has other columns than {first}: it {what}; give all files the same columns")


def listed(names, most: int = 12) -> str:
    """Names for a message: the first ones, and how many there are."""
    names = [repr(name) if name.strip() != name or not name else name for name in names]
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
