"""The values of an Arrow column as numbers, or as the codes of its texts; nothing is guessed."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# In columns of numbers, in lower case. Programs write these where they have no number.
MISSING = ("", "na", "n/a", "#n/a", "nan", "-nan", "null", "none")
# A number with separators of thousands, or with another mark before its decimals.
_MARKED = re.compile(r"[+-]?\d+([.,' ]\d+)+")
_NUMERIC = pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null


class BadValue(Exception):
    """A value that a column may not hold: its row in the batch, what is wrong with it, and the remedy if known."""

    def __init__(self, row: int, problem: str, remedy: str = ""):
        super().__init__(problem)
        self.row, self.problem, self.remedy = row, problem, remedy


def numbers(column: pa.Array, dtype: np.dtype, words: tuple[str, ...] = (), decimal: str = ".") -> np.ndarray:
    """The numbers of a column.

    Args:
        column: of numbers, truth values, or texts that are numbers.
        dtype: the floating type that each number must fit.
        words: more texts or numbers that mean a missing value.
        decimal: what separates the whole part of a number in a text.

    Returns:
        (n,) float64, NaN where a value is missing.

    Raises:
        BadValue: for the first value that is no finite number of this type.
    """
    column = _plain(column)
    text = is_text(column.type)
    if not text and not any(is_kind(column.type) for is_kind in _NUMERIC):
        raise BadValue(0, f"{column.type} is not a type of numbers")
    try:
        # Most columns hold plain numbers only.
        found = _float64(column) if not text or decimal == "." else _float64(_cleaned(column, words, decimal))
    except pa.ArrowInvalid:
        cleaned = _cleaned(column, words, decimal) if text else column
        row = _first_bad(cleaned)
        if row is not None:
            raise _not_a_number(row, column[row].as_py()) from None
        found = _float64(cleaned)
    values = found.to_numpy(zero_copy_only=False)
    known = [float(word) for word in words if is_number(word)]
    values = np.where(np.isin(values, known), np.nan, values) if known else values
    _check_range(values, dtype)
    return values


def texts(column: pa.Array, words: tuple[str, ...] = ()) -> pa.Array:
    """The texts of a column without blanks around them, null where a value is missing.

    Raises:
        BadValue: the type of the column has no text.
    """
    column = _plain(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise BadValue(0, f"{column.type} is not a type of categories") from error
    return pc.if_else(pc.is_in(text, pa.array(["", *words], pa.string())), pa.scalar(None, pa.string()), text)


def codes(text: pa.Array, known: dict[str, int]) -> np.ndarray:
    """The code of each text, (n,) float64, NaN where it is null; new texts are added to `known`."""
    encoded = pc.dictionary_encode(text)
    words = encoded.dictionary.to_pylist()
    for word in words:
        if "\n" in word or "\r" in word:
            row = pc.index(text, word).as_py()
            problem = f"{shown(word)} has a line break in it"
            raise BadValue(row, problem, "close the quotation mark before it, or --drop the column")
    # The last one is that of nulls.
    table = np.array([*(known.setdefault(word, len(known)) for word in words), np.nan])
    return table[encoded.indices.fill_null(-1).to_numpy()]


def shown(value) -> str:
    """A value for a message, in one line that is not long."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:56]}...'"


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of the two of texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _float64(column: pa.Array) -> pa.Array:
    return (column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column).cast(pa.float64())


def _cleaned(text: pa.Array, words: tuple[str, ...], decimal: str) -> pa.Array:
    """Texts without blanks around them, with a decimal point, and null where a value is missing."""
    text = pc.utf8_trim_whitespace(text)
    blank = pc.is_in(pc.utf8_lower(text), pa.array([*MISSING, *map(str.lower, words)], text.type))
    if decimal != ".":
        # A point here separates thousands, which would be read as decimals: nothing that is a number has a "?".
        text = pc.replace_substring(pc.replace_substring(text, ".", "?"), decimal, ".")
    return pc.if_else(blank, pa.scalar(None, text.type), text)


def _not_a_number(row: int, value) -> BadValue:
    if isinstance(value, int):
        return BadValue(row, f"{value} is beyond 2**53, the whole numbers that float64 holds", "leave the column out")
    marks = "take out what separates thousands; if decimals come after a comma, give --decimal ,"
    return BadValue(row, f"{shown(value)} is not a number", marks if _MARKED.fullmatch(str(value).strip()) else "")


def _first_bad(column: pa.Array) -> int | None:
    """The first row that is no number, or None; found by halves, since Arrow does not tell."""
    first, stop = 0, len(column) + 1
    # The rows before `first` can be cast, those before `stop` cannot.
    while stop - first > 1:
        middle = (first + stop) // 2
        try:
            _float64(column.slice(first, middle - first))
        except pa.ArrowInvalid:
            stop = middle
        else:
            first = middle
    return first if first < len(column) else None


def _check_range(values: np.ndarray, dtype: np.dtype) -> None:
    over = np.abs(values) > np.finfo(dtype).max
    if over.any():
        row = int(np.argmax(over))
        value = values[row]
        if np.isinf(value):
            missing = f"if it stands for a missing value, give --missing-words {value}"
            raise BadValue(row, f"{value} is not finite", f"fix it, or {missing}")
        raise BadValue(row, f"{value} does not fit {dtype}", "give --dtype float64")


def is_number(text: str) -> bool:
    """Whether a text is a number that is not NaN."""
    try:
        return float(text) == float(text)
    except ValueError:
        return False
