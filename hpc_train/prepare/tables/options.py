"""Options of `hpc-train prepare csv` and `prepare parquet`."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpc_train.data.shards.compression import Compression
from hpc_train.errors import UserError

# Given twice, such an option names more columns; otherwise the first names would be lost, and become inputs.
Names = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME ...")]


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How the columns of a table become samples."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files, or quoted patterns such as 'houses-*.csv'; all with the same columns."""
    output: Path
    """Folder for the shards, and for table.json, which records the columns and what was done with them."""
    target: Names = ()
    """Columns of numbers to predict. All columns that no option names are inputs, and must hold numbers."""
    class_target: str | None = None
    """Column of classes to predict, instead of --target: text, or whole numbers. The classes are the values in the
    training rows, sorted."""
    classes: int | None = None
    """With --class-target: the column holds class numbers from 0, and there are this many classes."""
    categories: Names = ()
    """Input columns of categories, such as town. Each value in the training rows becomes an input of its own,
    town=Oslo, which is 1 where the row has this value and 0 elsewhere."""
    unknown: Literal["error", "zeros"] = "error"
    """What to do with a category that is only in held-out rows. error: name it and stop; zeros: all inputs of the
    column are 0."""
    drop: Names = ()
    """Columns to leave out."""
    missing: Literal["error", "drop", "mean", "median"] = "error"
    """What to do with missing values. error: count and name them, and stop; drop: leave out their rows; mean, median:
    fill in the mean or median of the column's training rows, and the most frequent category. Targets are never
    filled in."""
    missing_words: Names = ()
    """More texts or numbers that mean a missing value, such as ? or -999. Empty values always do, and in columns of
    numbers also NA, N/A, NaN, null and None, in upper or lower case."""
    test_fraction: float | None = None
    """Share of the rows to use for testing, such as 0.2, the same of every class; 0: no test part."""
    seed: int = 0
    """Seed of the choice of the test rows: the same seed and rows give the same choice."""
    split_column: str | None = None
    """Column that says train, validation or test, instead of --test-fraction."""
    test: Names = ()
    """Files, or quoted patterns, of the test part, instead of --test-fraction."""
    dtype: Literal["float32", "float64"] = "float32"
    """Type of the inputs, and of targets that are numbers."""
    shards: int | None = None
    """Number of files of each split; by default at least 4, of about 256 MiB each."""
    compression: Compression = "none"
    """none is the fastest to read. The others store the inputs in compressed chunks; zstd is small and fast."""

    def check(self) -> None:
        """Check what does not depend on the files.

        Raises:
            UserError: options are missing, wrong, or exclude each other.
        """
        if bool(self.target) == bool(self.class_target):
            raise UserError("give the column to predict: --target for numbers, or --class-target for a class; not both")
        if self.classes is not None and (not self.class_target or self.classes < 1):
            raise UserError("--classes is the number of classes of --class-target, at least 1; fix it or leave it out")
        ways = {
            "--test-fraction": self.test_fraction is not None,
            "--split-column": self.split_column is not None,
            "--test": bool(self.test),
        }
        if sum(ways.values()) != 1:
            given = " and ".join(name for name, used in ways.items() if used)
            what = f"{given} exclude each other" if given else "no option says which rows are for testing"
            raise UserError(
                f"{what}; give one of --test-fraction 0.2 (0 for no test part), --split-column NAME and --test FILE"
            )
        if self.test_fraction is not None and not 0 <= self.test_fraction < 1:
            raise UserError(f"--test-fraction is {self.test_fraction}; give at least 0, and less than 1")
        if self.shards is not None and self.shards < 1:
            raise UserError(f"--shards is {self.shards}; give at least 1")


def flat(names: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """The names of all uses of an option."""
    return tuple(chain.from_iterable(names))
