"""The rows of tables as one array of numbers in a file without a name, so that they need not fit in memory."""

import tempfile

import numpy as np

from hpc_train.errors import UserError
from hpc_train.prepare.tables.options import TableOptions, flat
from hpc_train.prepare.tables.roles import Roles, assign, check_same, listed
from hpc_train.prepare.tables.values import BadValue, codes, numbers, shown, texts

# Above this, a column is hardly one of categories, and its one-hot inputs would fill the disk.
MOST_CATEGORIES = 1000
# Between these, whole numbers such as times and identifiers are exact in float64, and may not be in float32.
_WHOLE = 2**24, 2**53


class Table:
    """The values of all files, read once: a context that closes the file of the values.

    Args:
        paths: the files; those of the test part last.
        source: reads them: `CsvFiles` or `ParquetFiles`.
        options: as the command line gives them.

    Attributes:
        roles: what the columns are for.
        values: (rows, 1 + columns used) float64, mapped from the file: the number of the row in all files, then the
            numbers, and the codes of texts. Missing values are NaN.
        words: {column: its texts, in the order of their codes}.
        starts: number of each file's first row in all files.
        missing: {column: [how many, where the first is]}.
        rounded: {column: a whole number that float32 cannot hold}.
    """

    def __init__(self, paths: list[str], source, options: TableOptions):
        self.paths, self.source, self.options = paths, source, options
        self.roles: Roles = assign(paths[0], source.header(paths[0]), options)
        self._places = {name: place for place, name in enumerate(self.roles.used, 1)}
        self.starts: list[int] = []
        self.missing: dict[str, list] = {}
        self.rounded: dict[str, float] = {}
        self._codes: dict[str, dict[str, int]] = {name: {} for name in self.roles.used if name in self.roles.texts}
        self._rows, self._kept = 0, 0
        self._first_row: dict[str, int] = {}
        self._missing_words = flat(options.missing_words)
        # Rows are written, not mapped: a full disk is then an error, and not a signal that ends the process.
        folder = next(folder for folder in (options.output, *options.output.absolute().parents) if folder.is_dir())
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def read(self) -> None:
        """Read all files.

        Raises:
            UserError: a file cannot be read, has other columns, or holds a value that does not fit its column; a value
                is missing that may not be.
        """
        for path in self.paths:
            check_same(path, self.source.header(path), self.paths[0], self.roles)
            self.starts.append(self._rows)
            for row, columns in self.source.pieces(path, self.roles.used):
                self._first_row.setdefault(path, row)
                self._add(path, row, columns)
            if path not in self._first_row:
                raise UserError(f"{path}: has no rows below its names of columns; give a file with rows")
        self._check_missing()
        if not self._kept:
            raise UserError(f"{self.paths[0]}: no row is without missing values; --drop the columns that lack most")
        self._file.flush()
        shape = self._kept, 1 + len(self.roles.used)
        self.values = np.memmap(self._file, np.float64, "r", shape=shape)
        self.words = {name: list(known) for name, known in self._codes.items()}

    @property
    def left_out(self) -> int:
        """Number of rows with missing values that were left out."""
        return self._rows - self._kept

    def column(self, name: str) -> int:
        """Place of a column in `values`."""
        return self._places[name]

    def place(self, number: float) -> str:
        """The file and row of a row's number in all files, for messages."""
        file = int(np.searchsorted(self.starts, number, side="right")) - 1
        path = self.paths[file]
        return f"{path}: row {int(number) - self.starts[file] + self._first_row[path]}"

    def _add(self, path: str, row: int, columns: dict) -> None:
        count = len(columns[self.roles.used[0]])
        block = np.empty((count, 1 + len(columns)))
        block[:, 0] = np.arange(self._rows, self._rows + count)
        wrong = []
        for place, (name, column) in enumerate(columns.items(), 1):
            try:
                block[:, place] = self._converted(name, column)
            except BadValue as bad:
                wrong.append((name, bad))
        if wrong:
            raise self._refusal(path, row, wrong)
        lacking = np.isnan(block)
        for place in np.flatnonzero(lacking.any(axis=0)):
            where = f"{path}, row {row + int(np.argmax(lacking[:, place]))}"
            self.missing.setdefault(self.roles.used[place - 1], [0, where])[0] += int(lacking[:, place].sum())
        if self.options.missing == "drop":
            block = block[~lacking.any(axis=1)]
        self._file.write(block.tobytes())
        self._rows += count
        self._kept += len(block)

    def _converted(self, name: str, column) -> np.ndarray:
        if name in self._codes:
            found = codes(texts(column, self._missing_words), self._codes[name])
            if name in self.roles.inputs and len(self._codes[name]) > MOST_CATEGORIES:
                raise BadValue(0, f"the column has more than {MOST_CATEGORIES} categories")
            return found
        dtype = np.dtype(self.options.dtype)
        found = numbers(column, dtype, self._missing_words, getattr(self.options, "decimal", "."))
        if dtype == np.float32 and name not in self.rounded:
            size, short = np.abs(found), found.astype(np.float32)
            changed = (size > _WHOLE[0]) & (size < _WHOLE[1]) & (found == np.floor(found)) & (found != short)
            if changed.any():
                self.rounded[name] = found[np.argmax(changed)]
        return found

    def _refusal(self, path: str, row: int, wrong: list[tuple[str, BadValue]]) -> UserError:
        """One line about the columns of a piece that hold what they may not."""
        name, bad = wrong[0]
        more = f"; the same in {listed([name for name, _ in wrong[1:]])}" if len(wrong) > 1 else ""
        remedy = "leave out with --drop what is not for the network, and name columns of text in --categories"
        if name in self.roles.texts:
            remedy = "leave the column out with --drop"
        elif name in self.roles.targets:
            remedy = "a target of text is a class: --class-target"
        return UserError(f"{path}: row {row + bad.row}, column {name!r}: {bad.problem}{more}; {bad.remedy or remedy}")

    def _check_missing(self) -> None:
        filled = self.roles.inputs if self.options.missing in ("mean", "median") else ()
        bad = {name: found for name, found in self.missing.items() if name not in filled}
        if not bad or self.options.missing == "drop":
            return
        what = ", ".join(f"{shown(name)} {count} (first: {where})" for name, (count, where) in list(bad.items())[:8])
        more = f" and {len(bad) - 8} more columns" if len(bad) > 8 else ""
        remedy = "leave out these rows with --missing drop"
        if not set(bad) & {*self.roles.used[len(self.roles.inputs) :]}:
            remedy += ", fill them in with --missing mean or median, or --drop the columns"
        raise UserError(f"values are missing: {what}{more}; {remedy}")
