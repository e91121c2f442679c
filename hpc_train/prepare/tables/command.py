"""`hpc-train prepare csv` and `hpc-train prepare parquet`: the columns of tables as shards."""

import importlib.util
import sys
from dataclasses import dataclass

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.prepare.tables.options import TableOptions, flat
from hpc_train.requirements import pip_install

# Beside the shards: the columns, and what was done with them.
RECORD = "table.json"


@dataclass(frozen=True, kw_only=True)
class Csv(TableOptions):
    """Turn the columns of CSV files into sharded HDF5 files for the trainers.

    Files are UTF-8, packed (.gz, .bz2) or not, with a line of column names. No type is guessed: a column is of numbers,
    unless an option names it. Messages count rows as a spreadsheet does: the column names are row 1.
    """

    delimiter: str = ","
    """The character between columns, such as ';', or tab."""
    decimal: str = "."
    """The character before the decimals of a number, such as ','."""
    columns: tuple[str, ...] = ()
    """Names of all columns, for files without a line of names."""

    def check(self) -> None:
        """Check what does not depend on the files.

        Raises:
            UserError: as of `TableOptions.check`, or for a delimiter that cannot be one.
        """
        super().check()
        if self.decimal not in (".", ","):
            raise UserError(f"--decimal is {self.decimal!r}; give . or ,")
        if self.mark in ('"', "\n", "\r", self.decimal) or len(self.mark) != 1 or not self.mark.isascii():
            raise UserError(f"--delimiter is {self.delimiter!r}; give one character, such as ; or tab")

    @property
    def mark(self) -> str:
        """The delimiter itself."""
        return "\t" if self.delimiter in ("tab", "\\t") else self.delimiter


@dataclass(frozen=True, kw_only=True)
class Parquet(TableOptions):
    """Turn the columns of Parquet files into sharded HDF5 files for the trainers.

    Columns of whole, floating and decimal numbers and of truth values (0 and 1) are numbers; texts must be declared.
    Messages count rows from 0, as pandas does.
    """


def run(options: TableOptions) -> None:
    """Write the shards, and print what became of the columns.

    Raises:
        UserError: an option or a file is wrong, or the shards cannot be written.
    """
    options.check()
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"tables need PyArrow, which is not installed: {pip_install('tables')}")
    from hpc_train.data.hdf5.access import reason
    from hpc_train.prepare.tables.files import CsvFiles, ParquetFiles, check_distinct, find
    from hpc_train.prepare.tables.table import Table

    source = CsvFiles(options.mark, options.columns) if isinstance(options, Csv) else ParquetFiles()
    paths, tests = find(options.files), find(flat(options.test))
    check_distinct(paths + tests)
    try:
        with Table(paths + tests, source, options) as table:
            table.read()
            _write(options, table, table.starts[len(paths)] if tests else None)
    except OSError as error:
        raise UserError(
            f"{error.filename or options.output}: cannot be written ({reason(error)}); free space or choose another "
            "output folder"
        ) from error


def _write(options: TableOptions, table, first_test: int | None) -> None:
    from hpc_train.files.json_file import write_json
    from hpc_train.prepare.splits import write_splits
    from hpc_train.prepare.tables.encoding import Encoding, split_rows

    rows = split_rows(table, first_test)
    encoding = Encoding(table, rows["train"])
    unknown = {split: encoding.unknown(part) for split, part in rows.items() if split != "train"}
    splits = {split: encoding.samples(part) for split, part in rows.items()}
    filled = ", ".join(f"{name} {_short(value)}" for name, value in encoding.filled.items())
    write_splits(
        options.output,
        splits,
        classes=encoding.classes,
        class_names=encoding.class_names,
        channel_names=encoding.names,
        target_names=[] if encoding.classes else table.roles.targets,
        source=f"columns of {table.paths[0]}" + (f", missing values filled with {filled}" if filled else ""),
        shards=options.shards,
        compression=options.compression,
    )
    record = {
        "files": table.paths,
        "inputs": encoding.names,
        "targets": table.roles.targets,
        "categories": encoding.categories,
        "class_names": encoding.class_names,
        "missing": {name: count for name, (count, _) in table.missing.items()},
        "filled": encoding.filled,
        "rows_left_out": table.left_out,
        "unknown": unknown,
    }
    write_json(options.output / RECORD, record)
    _report(options, table, encoding, unknown)


def _report(options: TableOptions, table, encoding, unknown: dict[str, dict[str, int]]) -> None:
    from hpc_train.prepare.tables.roles import listed

    say(f"inputs: {listed(encoding.names)}")
    say(f"targets: {listed(table.roles.targets)}")
    if encoding.class_names:
        say(f"classes: {listed(f'{number}: {name}' for number, name in enumerate(encoding.class_names))}")
    missing = ", ".join(f"{name} {count}" for name, (count, _) in table.missing.items())
    if table.left_out:
        say(f"left out: {table.left_out} rows with missing values ({missing})")
    for name, value in encoding.filled.items():
        how = "most frequent" if name in encoding.categories else options.missing
        say(f"missing: {name} {table.missing[name][0]}, filled with {_short(value)} ({how} of the training rows)")
    for split, columns in unknown.items():
        for name, count in columns.items():
            say(f"{split}: {count} rows have a {name} that is in no training row: all its inputs are 0")
    for name, value in table.rounded.items():
        say(f"note: column {name}: float32 does not hold {value:.0f} exactly; --dtype float64 does", sys.stderr)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
