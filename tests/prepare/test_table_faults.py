"""What `hpc-train prepare csv` and `prepare parquet` refuse: one line that names file, row, column and value."""

import datetime
import sys

import pytest
import tyro

from hpc_train.errors import UserError

pa = pytest.importorskip("pyarrow", reason="tables need PyArrow: pip install pyarrow")
parquet = pytest.importorskip("pyarrow.parquet", reason="tables need PyArrow: pip install pyarrow")

from hpc_train.prepare.tables.command import Csv, Parquet, run  # noqa: E402


def refusal(folder, *arguments, options=Csv):
    """The one line of the UserError that preparing ends with; nothing is written."""
    with pytest.raises(UserError) as caught:
        run(tyro.cli(options, args=[*map(str, arguments), "--output", str(folder / "out")]))
    message = str(caught.value)
    assert "\n" not in message
    assert not (folder / "out").exists()
    return message


P = "--target", "p"
CSV = {
    "thousands": ('a,p\n"1,234",2\n', P, "{a}: row 2, column 'a': '1,234' is not a number; take out what separates"),
    "decimal commas": ("a;p\n1;1,5\n", (*P, "--delimiter", ";"), "row 2, column 'p': '1,5' is not a number; take out"),
    "points of thousands": (
        "a;p\n1.234;2\n",
        (*P, "--delimiter", ";", "--decimal", ","),
        "'1.234' is not a number; take out what separates thousands",
    ),
    "semicolons": ("a;p\n1;2\n", P, "{a}: its columns seem to be separated by ';': give --delimiter ';'"),
    "tabs": ("a\tp\n1\t2\n", P, "{a}: its columns seem to be separated by tab: give --delimiter tab"),
    "text": (
        "a,b,p\n1,x,2\n3,y,4\n",
        P,
        "{a}: row 2, column 'b': 'x' is not a number; leave out with --drop what is not for the network, and name",
    ),
    "several columns of text": ("a,b,p\nz,x,2\n", P, "column 'a': 'z' is not a number; the same in b; leave out with"),
    "text below": ("a,p\n1,2\n3,4\nno,5\n", P, "row 4, column 'a': 'no' is not a number"),
    "dates": ("day,p\n2020-01-31,2\n", P, "row 2, column 'day': '2020-01-31' is not a number"),
    "truth values": ("a,p\nTrue,2\n", P, "row 2, column 'a': 'True' is not a number"),
    "other numerals": ("a,p\n0x1f,2\n", P, "row 2, column 'a': '0x1f' is not a number"),
    "a target of text": ("a,p\n1,yes\n", P, "column 'p': 'yes' is not a number; a target of text is a class: --class-"),
    "infinity": ("a,p\n1,2\ninf,3\n", P, "row 3, column 'a': inf is not finite; fix it, or if it stands for a missing"),
    "too large": ("a,p\n1e39,2\n", P, "row 2, column 'a': 1e+39 does not fit float32; give --dtype float64"),
    "missing": (
        "a,b,p\n1,,2\n,NA,3\n4,5,6\n",
        P,
        "values are missing: 'a' 1 (first: {a}, row 3), 'b' 2 (first: {a}, row 2); leave out these rows with --missing "
        "drop, fill them in with --missing mean or median, or --drop the columns",
    ),
    "missing target": (
        "a,p\n1,2\n,nan\n",
        (*P, "--missing", "mean"),
        "values are missing: 'p' 1 (first: {a}, row 3); leave out these rows with --missing drop",
    ),
    "all missing": ("a,p\n,1\n,2\n", (*P, "--missing", "median"), "column 'a' has no value in the training rows"),
    "all dropped": ("a,p\n,1\n,2\n", (*P, "--missing", "drop"), "{a}: no row is without missing values"),
    "no header": ("1.5,2\n3,4\n", P, "{a}: the first line is 1.5, 2: numbers, not names of columns; add a line"),
    "too few names": ("1,2,3\n", (*P, "--columns", "a", "p"), "row 1: Expected 2 columns, got 3"),
    "two of a name": ("a,a,p\n1,2,3\n", P, "{a}: 2 columns are named 'a'; give each column a name of its own"),
    "two without a name": (",,p\n1,2,3\n", P, "{a}: 2 columns have no name"),
    "an index": (",a,p\n0,2,3\n", P, "{a}: column 1, which has no name, seems to be pandas's index"),
    "a long row": ("a,p\n1,2\n1,2,3\n", P, "{a}: cannot be read as CSV (row 3: Expected 2 columns, got 3: 1,2,3)"),
    "a short row": ("a,p\n1,2\n3\n", P, "{a}: cannot be read as CSV (row 3: Expected 2 columns, got 1: 3)"),
    "an open quote": ('a,p,n\n1,2,"x\n3,4,y\n', (*P, "--drop", "n"), "{a}: has an odd number of quotation marks"),
    "two open quotes": (
        'a,n,p\n1,"x,2\n3,y",4\n',
        (*P, "--categories", "n"),
        "row 2, column 'n': 'x,2\\n3,y' has a line break in it; close the quotation mark before it",
    ),
    "Latin-1": (b"a,p\n1,\xe9\n", ("--class-target", "p"), "{a}: is not UTF-8; convert it: `iconv -f latin1"),
    "Latin-1 names": (b"\xe9,p\n1,2\n", P, "{a}: is not UTF-8"),
    "UTF-16": ("a,p\n1,2\n".encode("utf-16"), P, "{a}: is not UTF-8"),
    "empty": ("", P, "{a}: is empty"),
    "names only": ("a,p\n", P, "{a}: has no rows below its names of columns"),
    "no such column": ("a,p\n1,2\n", ("--target", "q"), "{a}: has no column 'q'; its columns are a, p"),
    "two uses": ("a,p\n1,2\n", (*P, "--drop", "p"), "column 'p' is named twice on the command line"),
    "no inputs": ("a,p\n1,2\n", (*P, "--drop", "a"), "{a}: no column is left as input (a, p)"),
    "class numbers from 1": (
        "a,p\n1,1\n2,2\n",
        ("--class-target", "p", "--classes", "2"),
        "{a}: row 3, column 'p': '2' is not a class number from 0 to 1",
    ),
    "text as class numbers": ("a,p\n1,x\n", ("--class-target", "p", "--classes", "2"), "'x' is not a class number"),
    "identifiers": (
        "a,p\n" + "".join(f"n{number},1\n" for number in range(1001)),
        (*P, "--categories", "a"),
        "{a}: row 2, column 'a': the column has more than 1000 categories; leave the column out with --drop",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CSV)
def test_what_would_be_guessed_is_refused(tmp_path, case):
    content, arguments, expected = CSV[case]
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert expected.format(a=path) in refusal(tmp_path, path, *arguments, "--test-fraction", "0")


def test_rows_are_counted_over_all_pieces_of_a_file(tmp_path, monkeypatch):
    from hpc_train.prepare.tables import files

    monkeypatch.setattr(files, "_BLOCK", 100)
    rows = [f"{number},{number}" for number in range(500)]
    path = tmp_path / "a.csv"
    for bad, expected in (("x,1", "row 402, column 'a': 'x' is not"), ("1,2,3", "row 402: Expected 2 columns, got 3")):
        path.write_text("\n".join(["a,p", *rows[:400], bad, *rows[400:]]))
        assert expected in refusal(tmp_path, path, *P, "--test-fraction", "0")


NUMBERS = pa.array([1.0, 2.0])
PARQUET = {
    "dates": ({"a": pa.array([datetime.date(2020, 1, 1)] * 2)}, (), "column 'a': date32[day] is not a type of numbers"),
    "times": ({"a": pa.array([1, 2], pa.timestamp("ms"))}, (), "column 'a': timestamp[ms] is not a type of numbers"),
    "lists": ({"a": pa.array([[1], [2]])}, (), "column 'a': list<element: int64> is not a type of numbers"),
    "lists as categories": ({"a": pa.array([[1], [2]])}, ("--categories", "a"), "is not a type of categories"),
    "text": ({"a": pa.array(["1", "x"])}, (), "{a}: row 1, column 'a': 'x' is not a number"),
    "categories": ({"a": pa.array(["y", "x"]).dictionary_encode()}, (), "{a}: row 0, column 'a': 'y' is not a number"),
    "NaN": ({"a": pa.array([1, float("nan")])}, (), "values are missing: 'a' 1 (first: {a}, row 1)"),
    "null": ({"a": pa.array([None, None])}, (), "values are missing: 'a' 2 (first: {a}, row 0)"),
    "infinity": ({"a": pa.array([1, float("-inf")])}, (), "row 1, column 'a': -inf is not finite"),
    "large": ({"a": pa.array([1, 2**53 + 1])}, (), "row 1, column 'a': 9007199254740993 is beyond 2**53"),
    "index": ({"__index_level_0__": NUMBERS}, (), "leave it out with --drop __index_level_0__"),
}


@pytest.mark.parametrize("case", PARQUET)
def test_columns_of_other_types_and_values_are_refused(tmp_path, case):
    columns, arguments, expected = PARQUET[case]
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"b": NUMBERS, "p": NUMBERS, **columns}), path)
    message = refusal(tmp_path, path, *P, *arguments, "--test-fraction", "0", options=Parquet)
    assert expected.format(a=path) in message


def test_damaged_parquet_files(tmp_path):
    path = tmp_path / "a.parquet"
    draw = pa.array([float(number) for number in range(1000)])
    parquet.write_table(pa.table({"a": draw, "p": draw}), path, write_page_checksum=True, use_dictionary=False)
    good = path.read_bytes()
    for bad in (b"", b"a,p\n1,2\n", good[:-9], good[:100] + b"\xff" + good[101:]):
        path.write_bytes(bad)
        message = refusal(tmp_path, path, *P, "--test-fraction", "0", options=Parquet)
        assert message.startswith(f"{path}: cannot be read as Parquet (")


def test_files_that_do_not_fit_each_other(tmp_path):
    one, two, three = (tmp_path / name for name in ("one.csv", "two.csv", "three.csv"))
    one.write_text("a,t,s,p\n1,x,train,2\n3,y,train,4\n")
    two.write_text("a,t,s,p\n1,z,Test,2\n")
    three.write_text("a,t,s,q\n1,x,test,2\n")
    names = *P, "--categories", "t", "--drop", "s"
    other = f"{three}: has other columns than {one}: it lacks p and also has q; give"
    assert f"{two}: row 2, column 't': 'z' is in no training row" in refusal(tmp_path, one, *names, "--test", two)
    assert other in refusal(tmp_path, one, *names, "--test", three)
    assert f"{one}: is given twice" in refusal(tmp_path, one, one, *names, "--test-fraction", "0")
    assert f"{one}: is given twice" in refusal(tmp_path, one, *names, "--test", tmp_path / "one.*")
    assert "none*.csv: no such file" in refusal(tmp_path, tmp_path / "none*.csv", *names, "--test-fraction", "0")
    assert f"{tmp_path}: is a folder; name its files" in refusal(tmp_path, tmp_path, *names, "--test-fraction", "0")
    split = *P, "--drop", "t", "--split-column", "s"
    assert f"{two}: row 2, column 's': 'Test' is not one of train, va" in refusal(tmp_path, one, two, *split)
    classes = "--class-target", "t", "--drop", "s", "p", "--test", two
    assert f"{two}: row 2, column 't': 'z' is in no training row, so it is no class" in refusal(tmp_path, one, *classes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "give the column to predict: --target for numbers, or --class-target for a class"),
        ((*P, "--class-target", "a"), "give the column to predict"),
        (P, "no option says which rows are for testing; give one of --test-fraction"),
        ((*P, "--test-fraction", "0.1", "--split-column", "s"), "--test-fraction and --split-column exclude"),
        ((*P, "--test-fraction", "1"), "--test-fraction is 1.0; give at least 0, and less than 1"),
        ((*P, "--test-fraction", "0", "--classes", "2"), "--classes is the number of classes of --class-target"),
        ((*P, "--test-fraction", "0", "--delimiter", "::"), "--delimiter is '::'; give one character"),
        ((*P, "--test-fraction", "0", "--decimal", ";"), "--decimal is ';'; give . or ,"),
        ((*P, "--test-fraction", "0", "--decimal", ","), "--delimiter is ','; give one character"),
        ((*P, "--test-fraction", "0", "--shards", "0"), "--shards is 0; give at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, arguments, expected):
    assert expected in refusal(tmp_path, "a.csv", *arguments)


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refusal(tmp_path, "a.csv", *P, "--test-fraction", "0")
    assert message.startswith("tables need PyArrow, which is not installed: pip install")
