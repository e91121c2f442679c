"""CSV and Parquet files as pieces of columns."""

import csv
import glob
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.files.limits import limited, lines, most_text
from hpc_train.units import MIB

# A row must fit into one block.
_BLOCK = 16 * MIB
_VALUES = 2**21
# PyArrow takes 9 kB for a column, whatever it holds.
_COLUMNS = 50_000


class CsvFiles:
    """Reads CSV files, packed or not, in UTF-8; every value is a text.

    Args:
        delimiter: the character between columns.
        columns: names of the columns where files have no header, else empty.
    """

    def __init__(self, delimiter: str, columns: tuple[str, ...] = ()):
        self.delimiter, self.columns = delimiter, columns

    def header(self, path: str) -> list[str]:
        """The names of the columns."""
        return [name.strip() for name in self.columns or self._first_line(path)]

    def pieces(self, path: str, names: tuple[str, ...]) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """Number of the first row, as a spreadsheet counts, and the columns of this name, piece by piece."""
        first = self._first_line(path)
        place = {name: number for number, name in enumerate(self.header(path))}
        row = 1 if self.columns else 2
        with _reading(path, "CSV"), _open(path) as file:
            if _quotes(path) % 2:
                raise UserError(f"{path}: has an odd number of quotation marks; close the one that is open")
            raw = list(self.columns or first)
            reader = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(
                    # Otherwise errors have no row.
                    use_threads=False,
                    block_size=_BLOCK,
                    column_names=raw if self.columns else None,
                ),
                parse_options=pyarrow.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.string() for name in raw}, strings_can_be_null=False
                ),
            )
            for batch in reader:
                yield row, {name: batch.column(place[name]) for name in names}
                row += batch.num_rows

    def _first_line(self, path: str) -> list[str]:
        with _reading(path, "CSV"), _open(path) as raw:
            text = lines(io.TextIOWrapper(raw, "utf-8-sig", newline=""), path)
            line = next((line for line in csv.reader(text, delimiter=self.delimiter) if line), None)
        if line is None:
            raise UserError(f"{path}: is empty; give a file with a line of column names and rows")
        other = next((mark for mark in ",;\t|" if len(line) == 1 and mark in line[0]), None)
        if other:
            shown = "tab" if other == "\t" else f"'{other}'"
            raise UserError(f"{path}: its columns seem to be separated by {shown}: give --delimiter {shown}")
        if len(line) > max(_COLUMNS, os.path.getsize(path) // 16):
            raise UserError(
                f"{path}: names {len(line)} columns, more than its size allows; give a file of rows, unpacked"
            )
        return line


class ParquetFiles:
    """Reads Parquet files."""

    def header(self, path: str) -> list[str]:
        """The names of the columns."""
        with _reading(path, "Parquet"), pyarrow.parquet.ParquetFile(path) as file:
            return list(file.schema_arrow.names)

    def pieces(self, path: str, names: tuple[str, ...]) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """Number of the first row, from 0, and the columns of this name, piece by piece."""
        with (
            _reading(path, "Parquet"),
            pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file,
        ):
            row = 0
            for batch in file.iter_batches(max(1, _VALUES // len(names)), columns=list(names)):
                yield row, {name: batch.column(name) for name in names}
                row += batch.num_rows


def find(patterns: tuple[str, ...]) -> list[str]:
    """The files that names and patterns stand for, in sorted order within a pattern.

    Raises:
        UserError: a file is missing, or is a folder.
    """
    paths = []
    for pattern in patterns:
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise UserError(f"{pattern}: no such file; check the path")
        if folder := next(filter(os.path.isdir, found), None):
            raise UserError(f"{folder}: is a folder; name its files, such as '{folder.rstrip('/')}/*'")
        paths += found
    return paths


def check_distinct(paths: list[str]) -> None:
    """UserError if a file is there twice."""
    real = [os.path.realpath(path) for path in paths]
    if twice := next((path for path, place in zip(paths, real, strict=True) if real.count(place) > 1), None):
        raise UserError(f"{twice}: is given twice; each row may be used once")


def _open(path: str):
    return limited(pa.input_stream(path, compression="detect"), path, most_text)


def _quotes(path: str) -> int:
    with _open(path) as raw:
        return sum(block.count(b'"') for block in iter(lambda: raw.read(_BLOCK), b""))


@contextmanager
def _reading(path: str, kind: str):
    """Turn the errors of reading a file into one line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(path)) from error
    except (OSError, csv.Error, pa.ArrowException) as error:
        why = reason(error)
        if "invalid UTF8" in why:
            raise UserError(_not_utf8(path)) from error
        why = why.replace("CSV parse error: ", "").replace("Row #", "row ")
        raise UserError(f"{path}: cannot be read as {kind} ({why[:200]}); fix the file") from error


def _not_utf8(path: str) -> str:
    return f"{path}: is not UTF-8; convert it: `iconv -f latin1 -t utf-8 {path}`, with the encoding that it has"
