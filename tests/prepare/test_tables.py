"""`hpc-train prepare csv` and `prepare parquet`: the values of the columns, as the csv module and NumPy read them."""

import csv
import json

import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train import cli
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader

pa = pytest.importorskip("pyarrow", reason="tables need PyArrow: pip install pyarrow")
parquet = pytest.importorskip("pyarrow.parquet", reason="tables need PyArrow: pip install pyarrow")

from hpc_train.prepare.tables.command import Csv, Parquet, run  # noqa: E402

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
TOWNS = st.sampled_from(["Oslo", "New York", 'the "Hague"', "Kyōto", "a,b", "1;2", "=x"])


def prepare(folder, *arguments, options=Csv):
    run(tyro.cli(options, args=[*map(str, arguments), "--output", str(folder)]))


def read_all(folder, split="train"):
    catalogue = Catalogue.open(folder, split)
    return Reader(catalogue).read(np.arange(catalogue.samples))


def write(path, header, rows, **how):
    with open(path, "w", encoding=how.pop("encoding", "utf-8"), newline="") as file:
        writer = csv.writer(file, **how)
        writer.writerows([header, *rows] if header else rows)
    return path


def houses(samples=60, seed=0):
    """Rows of id, rooms, area, town, price: texts, as a file has them."""
    draw = np.random.default_rng(seed)
    towns = draw.choice(["Bergen", "Kobe", "Oslo"], samples)
    return [
        [str(number), str(draw.integers(1, 9)), f"{draw.normal(90, 20):.2f}", town, f"{draw.normal(3):.3f}"]
        for number, town in enumerate(towns)
    ]


HEADER = ["id", "rooms", "area", "town", "price"]
COLUMNS = "--target", "price", "--drop", "id", "--categories", "town"


def expected(rows):
    """Inputs and targets of `houses`."""
    inputs = [[float(row[1]), float(row[2]), *(row[3] == town for town in ("Bergen", "Kobe", "Oslo"))] for row in rows]
    return np.array(inputs, np.float32), np.array([float(row[4]) for row in rows], np.float32)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(FINITE, TOWNS, st.integers(-(2**24), 2**24), FINITE), min_size=1, max_size=8),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_csv_of_any_dialect_gives_the_values_that_were_written(tmp_path_factory, rows, mark, quotes, end, encoding):
    folder = tmp_path_factory.mktemp("csv")
    comma = mark == ";"
    texts = [
        [text.replace(".", ",") if comma else text for text in (repr(a), town, str(whole), repr(target))]
        for a, town, whole, target in rows
    ]
    texts = [[a, town, whole, target] for (a, _, whole, target), (_, town, _, _) in zip(texts, rows, strict=True)]
    path = write(
        folder / "t.csv", ["a", "town", "b", "y"], texts,
        delimiter=mark, quoting=quotes, lineterminator=end, encoding=encoding,
    )  # fmt: skip
    how = "--delimiter", {"\t": "tab"}.get(mark, mark), "--decimal", "," if comma else "."
    prepare(folder / "out", path, "--target", "y", "--categories", "town", "--test-fraction", 0, *how)
    inputs, targets = read_all(folder / "out")
    towns = sorted({row[1] for row in rows})
    one_hot = [[row[1] == town for town in towns] for row in rows]
    np.testing.assert_array_equal(targets, np.array([row[3] for row in rows], np.float32))
    np.testing.assert_array_equal(inputs[:, 0], np.array([row[0] for row in rows], np.float32))
    np.testing.assert_array_equal(inputs[:, 1:-1], one_hot)
    np.testing.assert_array_equal(inputs[:, -1], np.array([row[2] for row in rows], np.float32))
    names = Catalogue.open(folder / "out", "train").channel_names
    assert names == ("a", *(f"town={town}" for town in towns), "b")


KINDS = [pa.int8(), pa.uint16(), pa.int64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.decimal128(30, 3)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), TOWNS), min_size=1, max_size=8), st.sampled_from(KINDS), st.booleans())
def test_parquet_columns_of_all_types_of_numbers(tmp_path_factory, rows, kind, coded):
    folder = tmp_path_factory.mktemp("parquet")
    values = [number % 2 == 1 if kind == pa.bool_() else number for number, _ in rows]
    towns = pa.array([town for _, town in rows])
    table = {
        "a.b": pa.array(values).cast(kind),
        "town": towns.dictionary_encode() if coded else towns,
        "y": pa.array([number / 4 for number, _ in rows]),
    }
    parquet.write_table(pa.table(table), folder / "t.parquet")
    arguments = "--class-target", "town", "--drop", "y", "--test-fraction", 0
    prepare(folder / "out", folder / "t.parquet", *arguments, options=Parquet)
    inputs, classes = read_all(folder / "out")
    np.testing.assert_array_equal(inputs[:, 0], values)
    names = sorted({town for _, town in rows})
    assert [names[number] for number in classes] == [town for _, town in rows]
    assert Catalogue.open(folder / "out", "train").class_names == tuple(names)


def test_what_is_printed_and_recorded(tmp_path, capsys):
    rows = houses()
    rows[7][2] = rows[9][2] = "NA"
    rows[3][3] = ""
    path = write(tmp_path / "houses.csv", HEADER, rows)
    prepare(tmp_path / "out", path, *COLUMNS, "--test-fraction", 0, "--missing", "median")
    known = [float(row[2]) for row in rows if row[2] != "NA"]
    towns = [row[3] for row in rows if row[3]]
    often = max(sorted(set(towns)), key=towns.count)
    assert capsys.readouterr().out.splitlines() == [
        f"train: 60 samples of (5,) float32, targets () float32, 4 shards in {tmp_path / 'out'}",
        "inputs: rooms, area, town=Bergen, town=Kobe, town=Oslo",
        "targets: price",
        f"missing: area 2, filled with {np.median(known):.6g} (median of the training rows)",
        f"missing: town 1, filled with {often} (most frequent of the training rows)",
    ]
    for row in rows:
        row[2:4] = [str(np.median(known)) if row[2] == "NA" else row[2], row[3] or often]
    for found, wanted in zip(read_all(tmp_path / "out"), expected(rows), strict=True):
        np.testing.assert_array_equal(found, wanted)
    record = json.loads((tmp_path / "out" / "table.json").read_text())
    assert record["inputs"] == ["rooms", "area", "town=Bergen", "town=Kobe", "town=Oslo"]
    assert record["filled"] == {"area": np.median(known), "town": often}
    assert record["missing"] == {"area": 2, "town": 1}


def test_the_mean_is_that_of_the_training_rows_alone(tmp_path):
    rows = houses()
    for number in range(0, 60, 5):
        rows[number][2] = ""
    path = write(tmp_path / "houses.csv", HEADER, rows)
    arguments = "--target", "id", "--drop", "town", "price", "--test-fraction", 0.3, "--missing", "mean"
    prepare(tmp_path / "out", path, *arguments)
    (train, own), (test, other) = (read_all(tmp_path / "out", split) for split in ("train", "test"))
    mean = np.mean([float(rows[int(number)][2]) for number in own if rows[int(number)][2]])
    for inputs, numbers in ((train, own), (test, other)):
        wanted = [float(rows[int(number)][2] or mean) for number in numbers]
        np.testing.assert_allclose(inputs[:, 1], wanted, rtol=1e-6)
    assert sorted([*own, *other]) == list(range(60))
    assert len(other) == 18


def test_dropped_rows_and_missing_words(tmp_path, capsys):
    rows = houses()
    rows[4][1], rows[8][4], rows[20][2], rows[30][3] = "-999.0", "?", " n/a ", "unknown"
    path = write(tmp_path / "houses.csv", HEADER, rows)
    words = "--missing-words", "-999", "?", "unknown"
    prepare(tmp_path / "out", path, *COLUMNS, "--test-fraction", 0, "--missing", "drop", *words)
    kept = [row for number, row in enumerate(rows) if number not in (4, 8, 20, 30)]
    for found, wanted in zip(read_all(tmp_path / "out"), expected(kept), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert "left out: 4 rows with missing values (rooms 1, area 1, town 1, price 1)" in capsys.readouterr().out


def test_the_test_part_by_fraction_by_column_and_by_files(tmp_path):
    rows = houses()
    first, second = write(tmp_path / "a.csv", HEADER, rows[:40]), write(tmp_path / "b.csv", HEADER, rows[40:])
    names = ["train" if number % 3 else "validation" for number in range(60)]
    named = [[*row, name] for row, name in zip(rows, names, strict=True)]
    column = write(tmp_path / "c.csv", [*HEADER, "part"], named)
    for output, seed in (("one", 5), ("two", 5), ("three", 6)):
        pattern = tmp_path / "[ab].csv"
        prepare(tmp_path / output, pattern, *COLUMNS, "--test-fraction", 0.25, "--seed", seed)
    parts = [read_all(tmp_path / "one", split) for split in ("train", "test")]
    assert len(parts[1][1]) == 15
    found = sorted(zip(*(np.concatenate(part).tolist() for part in zip(*parts, strict=True)), strict=True))
    assert found == sorted(zip(*(part.tolist() for part in expected(rows)), strict=True))
    one, two, three = (read_all(tmp_path / output, "test")[0] for output in ("one", "two", "three"))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)

    prepare(tmp_path / "files", first, *COLUMNS, "--test", second)
    np.testing.assert_array_equal(read_all(tmp_path / "files", "test")[1], expected(rows[40:])[1])
    np.testing.assert_array_equal(read_all(tmp_path / "files")[0], expected(rows[:40])[0])

    prepare(tmp_path / "column", column, *COLUMNS, "--split-column", "part")
    np.testing.assert_array_equal(read_all(tmp_path / "column", "validation")[1], expected(rows[::3])[1])


def test_classes_are_numbered_by_size_or_by_letters_and_split_evenly(tmp_path):
    kinds, species = ["10", "9", "1.0", "1"], ["virginica", *["setosa"] * 4]
    rows = [[str(number), kinds[number % 4], species[number % 5]] for number in range(40)]
    path = write(tmp_path / "t.csv", ["a", "kind", "species"], rows)
    kind = "--class-target", "kind", "--drop", "species", "--test-fraction", 0
    prepare(tmp_path / "kind", path, *kind)
    assert Catalogue.open(tmp_path / "kind", "train").class_names == ("1", "9", "10")
    assert read_all(tmp_path / "kind")[1].tolist() == [2, 1, 0, 0] * 10
    prepare(tmp_path / "species", path, "--class-target", "species", "--drop", "kind", "--test-fraction", 0.25)
    assert np.bincount(read_all(tmp_path / "species", "test")[1]).tolist() == [8, 2]
    prepare(tmp_path / "given", path, *kind, "--classes", 12)
    catalogue = Catalogue.open(tmp_path / "given", "train")
    assert (catalogue.classes, catalogue.class_names) == (12, ())
    assert read_all(tmp_path / "given")[1].tolist() == [10, 9, 1, 1] * 10


def test_postcodes_keep_their_zeros_and_unknown_ones_are_zeros(tmp_path, capsys):
    train = write(tmp_path / "train.csv", ["code", "y"], [["0150", 1], ["150", 2], ["", 3]])
    test = write(tmp_path / "test.csv", ["y", "code"], [[4, "0150"], [5, "9999"]])
    arguments = "--target", "y", "--categories", "code", "--test", test, "--missing", "drop"
    prepare(tmp_path / "out", train, *arguments, "--unknown", "zeros")
    assert Catalogue.open(tmp_path / "out", "train").channel_names == ("code=0150", "code=150")
    assert read_all(tmp_path / "out")[0].tolist() == [[1, 0], [0, 1]]
    assert read_all(tmp_path / "out", "test")[0].tolist() == [[1, 0], [0, 0]]
    assert "test: 1 rows have a code that is in no training row: all its inputs are 0" in capsys.readouterr().out


def test_files_without_names_of_columns_packed_and_in_pieces(tmp_path, monkeypatch):
    from hpc_train.prepare.tables import files

    monkeypatch.setattr(files, "_BLOCK", 100)
    rows = houses(200)
    path = write(tmp_path / "plain.csv", None, rows)
    packed = tmp_path / "rows.csv.gz"
    with pa.CompressedOutputStream(packed, "gzip") as file:
        file.write(path.read_bytes())
    prepare(tmp_path / "out", packed, *COLUMNS, "--test-fraction", 0, "--columns", *HEADER)
    for found, wanted in zip(read_all(tmp_path / "out"), expected(rows), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_several_targets_given_in_one_option_or_in_two(tmp_path):
    path = write(tmp_path / "t.csv", ["a", "b", "c"], [[1, 2, 3], [4, 5, 6]])
    prepare(tmp_path / "one", path, "--target", "c", "b", "--test-fraction", 0)
    prepare(tmp_path / "two", path, "--target", "c", "--target", "b", "--test-fraction", 0, "--dtype", "float64")
    for output, kind in (("one", np.float32), ("two", np.float64)):
        inputs, targets = read_all(tmp_path / output)
        assert (inputs.tolist(), targets.tolist()) == ([[1], [4]], [[3, 2], [6, 5]])
        assert inputs.dtype == targets.dtype == kind


def test_whole_numbers_that_float32_rounds_are_named(tmp_path, capsys):
    path = write(tmp_path / "t.csv", ["time", "big", "y"], [[1600000001, "1.5e30", 1]])
    prepare(tmp_path / "out", path, "--target", "y", "--test-fraction", 0)
    assert capsys.readouterr().err.splitlines() == [
        "note: column time: float32 does not hold 1600000001 exactly; --dtype float64 does"
    ]


def test_the_other_commands_take_the_shards(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "houses.csv", HEADER, houses())
    prepare("shards", path, "--class-target", "town", "--drop", "id", "--test-fraction", "0.2")
    capsys.readouterr()
    for words in ("inspect", "verify", "stats"):
        monkeypatch.setattr("sys.argv", ["hpc-train", words, "--data", "shards"])
        cli.main()
    said = capsys.readouterr().out
    assert "channels: rooms area price" in said
    assert said.count("no faults found") == 2
    inputs, _ = read_all("shards")
    mean, deviation = (f"{value:.6g}" for value in (inputs[:, 1].mean(dtype=float), inputs[:, 1].std(dtype=float)))
    assert f"1 area {mean} {deviation}" in " ".join(said.split())
