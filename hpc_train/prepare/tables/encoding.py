"""From the values of a table to samples: missing values filled in, categories one-hot, classes numbered."""

import re

import numpy as np

from hpc_train.errors import UserError
from hpc_train.prepare.splits import Rows
from hpc_train.prepare.tables.roles import listed
from hpc_train.prepare.tables.table import Table
from hpc_train.prepare.tables.values import shown

_WHOLE = re.compile(r"-?(0|[1-9]\d*)(\.0+)?")
SPLITS = ("train", "validation", "test")


class Encoding:
    """What the training rows of a table say about its columns.

    Args:
        table: the values.
        train: numbers of the training rows in `table.values`.

    Attributes:
        names: one for each input.
        categories: {column: its categories, in the order of their inputs}.
        filled: {column: the number or category that stands for missing values}.
        class_names: in the order of the class numbers; empty where the target is no class, or has numbers already.
        classes: their number, 0 where the target is no class.

    Raises:
        UserError: a column has no value in the training rows.
    """

    def __init__(self, table: Table, train: np.ndarray):
        self.table, self.options = table, table.options
        self.names: list[str] = []
        self.categories: dict[str, list[str]] = {}
        self.filled: dict[str, float | str] = {}
        self._numbers, self._fills, self._places = [], [], []
        self._one_hot: list[tuple[int, np.ndarray, int]] = []
        for name in table.roles.inputs:
            self._learn_column(name, train)
        self.class_names, self.classes, self._class_of = (), 0, None
        if self.options.class_target:
            self._learn_classes(train)

    def samples(self, rows: np.ndarray) -> tuple[Rows, Rows]:
        """The inputs and targets of rows of the table."""
        values, dtype = self.table.values, self.options.dtype

        def read(convert):
            return lambda part: convert(values[rows[part]])

        inputs = Rows(len(rows), (len(self.names),), dtype, read(self._inputs))
        if self._class_of is not None:
            smallest = np.min_scalar_type(self.classes - 1)
            return inputs, Rows(len(rows), (), smallest, read(self._class_numbers))
        places = [self.table.column(name) for name in self.table.roles.targets]
        shape, chosen = ((), places[0]) if len(places) == 1 else ((len(places),), places)
        return inputs, Rows(len(rows), shape, dtype, read(lambda block: block[:, chosen]))

    def unknown(self, rows: np.ndarray) -> dict[str, int]:
        """How many of the held-out rows have categories that the training rows lack, by column.

        Raises:
            UserError: they may not, or a row has a class that the training rows lack.
        """
        found = {}
        for name in (*self.categories, *((self.options.class_target,) if self.class_names else ())):
            place = self.table.column(name)
            strange = self._strange(name, self.table.values[rows, place])
            if not strange.any():
                continue
            found[name] = int(strange.sum())
            row = self.table.values[rows[np.argmax(strange)]]
            word = self.table.words[name][int(row[place])]
            at = f"{self.table.place(row[0])}, column {name!r}: {shown(word)} is in no training row"
            if name == self.options.class_target:
                raise UserError(f"{at}, so it is no class; put some of its rows into training, or leave them out")
            if self.options.unknown == "error":
                raise UserError(f"{at}; put some into training, or give --unknown zeros (its inputs are then all 0)")
        return found

    def _learn_column(self, name: str, train: np.ndarray) -> None:
        place = self.table.column(name)
        text, lacks = name in self.table.roles.texts, name in self.table.missing
        fill = np.nan
        if text or lacks:
            values = self.table.values[train, place]
            values = values[~np.isnan(values)]
            if not len(values):
                raise UserError(f"column {name!r} has no value in the training rows; leave it out with --drop")
        if lacks and self.options.missing in ("mean", "median"):
            fill = self._fill(name, values)
        if not text:
            self._numbers.append(place)
            self._fills.append(fill)
            self._places.append(len(self.names))
            self.names.append(name)
            return
        self.categories[name], lookup = _names(self.table.words[name], values)
        if not np.isnan(fill):
            lookup[-1] = lookup[int(fill)]
        self._one_hot.append((place, lookup, len(self.names)))
        self.names += [f"{name}={category}" for category in self.categories[name]]

    def _fill(self, name: str, values: np.ndarray) -> float:
        """What stands for a missing value: a number, or the code of a category."""
        if name in self.table.roles.texts:
            code = np.bincount(values.astype(int)).argmax()
            self.filled[name] = self.table.words[name][code]
        else:
            code = np.mean(values) if self.options.missing == "mean" else np.median(values)
            self.filled[name] = float(code)
        return float(code)

    def _learn_classes(self, train: np.ndarray) -> None:
        name = self.options.class_target
        words, column = self.table.words[name], self.table.values[:, self.table.column(name)]
        if self.options.classes is None:
            names, self._class_of = _names(words, column[train])
            self.class_names, self.classes = tuple(names), len(names)
            return
        self.classes = self.options.classes
        self._class_of = np.array([int(word.split(".")[0]) if _WHOLE.fullmatch(word) else -1 for word in words])
        found = self._class_of[column.astype(int)]
        outside = (found < 0) | (found >= self.classes)
        if outside.any():
            row = np.argmax(outside)
            raise UserError(
                f"{self.table.place(self.table.values[row, 0])}, column {name!r}: {shown(words[int(column[row])])} is "
                f"not a class number from 0 to {self.classes - 1}; fix it, or leave out --classes, and every value "
                "becomes a class"
            )

    def _strange(self, name: str, codes: np.ndarray) -> np.ndarray:
        """Which of a column's codes the training rows lack."""
        if name == self.options.class_target:
            return self._class_of[_at(codes)] < 0
        lookup = next(lookup for place, lookup, _ in self._one_hot if place == self.table.column(name))
        return (lookup[_at(codes)] < 0) & ~np.isnan(codes)

    def _inputs(self, block: np.ndarray) -> np.ndarray:
        inputs = np.zeros((len(block), len(self.names)), self.options.dtype)
        values = block[:, self._numbers]
        inputs[:, self._places] = np.where(np.isnan(values), self._fills, values) if self.filled else values
        for place, lookup, first in self._one_hot:
            found = lookup[_at(block[:, place])]
            rows = np.flatnonzero(found >= 0)
            inputs[rows, first + found[rows]] = 1
        return inputs

    def _class_numbers(self, block: np.ndarray) -> np.ndarray:
        return self._class_of[block[:, self.table.column(self.options.class_target)].astype(int)]


def split_rows(table: Table, first_test: int | None) -> dict[str, np.ndarray]:
    """The rows of each split, as numbers in `table.values`.

    Args:
        table: the values.
        first_test: number of the first row in all files that is of the test files; None without such files.

    Raises:
        UserError: a split has no rows, or the column of the splits holds another name.
    """
    from hpc_train.prepare.splits import held_out

    options, values = table.options, table.values
    if options.split_column:
        place = table.column(options.split_column)
        words = table.words[options.split_column]
        for code in np.unique(values[:, place]).astype(int):
            if (word := words[code]) not in SPLITS:
                row = values[np.argmax(values[:, place] == code), 0]
                raise UserError(
                    f"{table.place(row)}, column {options.split_column!r}: {shown(word)} is not one of {listed(SPLITS)}"
                )
        parts = {split: values[:, place] == words.index(split) for split in SPLITS if split in words}
    elif first_test is not None:
        parts = {"train": values[:, 0] < first_test, "test": values[:, 0] >= first_test}
    elif options.test_fraction == 0:
        parts = {"train": np.ones(len(values), bool)}
    else:
        label = values[:, table.column(options.class_target)] if options.class_target else np.zeros(len(values))
        testing = held_out(label, options.test_fraction, options.seed)
        parts = {"train": ~testing, "test": testing}
    rows = {split: np.flatnonzero(part) for split, part in parts.items()}
    for split in ("train", *rows):
        if not len(rows.get(split, ())):
            raise UserError(f"{table.paths[0]}: no row is left for {split}; check the missing values and the split")
    return rows


def _names(words: list[str], present: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The different values of a column in order: whole numbers by size, other texts by letters.

    Args:
        words: the text of each code.
        present: codes of the training rows; NaN where a value is missing.

    Returns:
        The values in `present`, and for each code the place of its value among them, -1 where it is not there. The last
        entry is that of missing values, -1.
    """
    codes = np.unique(present[~np.isnan(present)]).astype(int)
    if all(_WHOLE.fullmatch(words[code]) for code in codes):
        # 1 and 1.0 are one; 01 is a text, such as a postcode.
        whole = [word.split(".")[0] if _WHOLE.fullmatch(word) else word for word in words]
        names = sorted({whole[code] for code in codes}, key=int)
    else:
        whole, names = words, sorted(words[code] for code in codes)
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([*(places.get(word, -1) for word in whole), -1])


def _at(codes: np.ndarray) -> np.ndarray:
    """Codes as indices; that of a missing value is -1, the last entry of a lookup."""
    return np.where(np.isnan(codes), -1, codes).astype(int)
