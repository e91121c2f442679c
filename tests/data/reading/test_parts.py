"""Several inputs, targets and sample weights: from files of any storage to arrays, shards and `fit`."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_shards import refusal

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.options import DataOptions
from hpc_train.data.plan import TrainPlan
from hpc_train.data.reading.loader import Loader
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack.command import Shard
from hpc_train.data.repack.command import run as shard
from hpc_train.data.shards import write_shards

DTYPES = ("<f4", ">f4", "<f8", "<f2", "|u1", "<i2", ">i8")
STORAGE = {"contiguous": {}, "chunked": {"chunks": True}, "gzip": {"chunks": True, "compression": "gzip"}}
SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)
ARRAYS = st.tuples(SHAPES, st.sampled_from(DTYPES), st.sampled_from(sorted(STORAGE)))


def drawn(seed, rows, shape, dtype):
    return np.random.default_rng(seed).integers(0, 100, (rows, *shape)).astype(dtype)


def write_files(folder, arrays, storages, files=2):
    """Rows of each data set divided over files."""
    for number in range(files):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            for (name, array), storage in zip(arrays.items(), storages, strict=True):
                part = np.array_split(array, files)[number]
                file.create_dataset(name, data=part, **STORAGE[storage])


@settings(deadline=None, max_examples=40)
@given(
    inputs=st.lists(ARRAYS, min_size=1, max_size=3),
    targets=st.lists(ARRAYS, max_size=3),
    weighted=st.booleans(),
    how=st.sampled_from(["auto", "map", "read", "h5py"]),
    seed=st.integers(0, 99),
)
def test_every_part_is_read_as_h5py_reads_it(tmp_path_factory, inputs, targets, weighted, how, seed):
    folder, rows = tmp_path_factory.mktemp("parts"), 11
    kinds = {f"in/{k}": kind for k, kind in enumerate(inputs)} | {f"out/{k}": kind for k, kind in enumerate(targets)}
    kinds |= {"w": ((), "<f4", "contiguous")} if weighted else {}
    arrays = {name: drawn(seed + k, rows, *kind[:2]) for k, (name, kind) in enumerate(kinds.items())}
    write_files(folder, arrays, [kind[2] for kind in kinds.values()])
    options = DataOptions(
        data=folder,
        inputs=tuple(f"x{k}=in/{k}" for k in range(len(inputs))),
        targets=tuple(f"y{k}=out/{k}" for k in range(len(targets))),
        sample_weights="w" if weighted else None,
    )
    catalogue = options.catalogue("train")
    assert [part.label for part in catalogue.inputs] == [f"input x{k}" for k in range(len(inputs))]
    wanted = np.random.default_rng(seed).permutation(rows)
    read = Reader(catalogue, how=how).read(wanted)
    assert len(read) == len(arrays)
    for array, expected in zip(read, arrays.values(), strict=True):
        assert array.tobytes() == expected[wanted].astype(expected.dtype.newbyteorder("=")).tobytes()
        assert array.shape == (rows, *expected.shape[1:])


@settings(deadline=None, max_examples=25)
@given(inputs=st.lists(ARRAYS, min_size=1, max_size=2), targets=st.lists(ARRAYS, max_size=2), weighted=st.booleans())
def test_shards_hold_every_part_and_give_it_back(tmp_path_factory, inputs, targets, weighted):
    folder, rows = tmp_path_factory.mktemp("parts"), 9
    x = {f"x{k}": drawn(k, rows, *kind[:2]) for k, kind in enumerate(inputs)}
    y = {f"y{k}": drawn(k + 5, rows, *kind[:2]) for k, kind in enumerate(targets)} or None
    w = drawn(7, rows, (), "<f4") if weighted else None
    write_shards(folder / "a", "train", x, y, weights=w, classes=0, shards=2)
    shard(Shard(data=folder / "a", output=folder / "b", shards=3, compression="zstd"))
    for data in (folder / "a", folder / "b"):
        catalogue = Catalogue.open(data)
        read = dict(zip([part.label for part in catalogue.parts], Reader(catalogue).read(range(rows)), strict=True))
        expected = {f"input {name}": array for name, array in x.items()}
        expected |= {f"target {name}": array for name, array in (y or {}).items()}
        expected |= {"weight": w} if weighted else {}
        assert list(read) == list(expected)
        for name, array in expected.items():
            assert read[name].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def test_the_loader_delivers_every_part_of_the_planned_samples(tmp_path):
    x, m, y = drawn(0, 24, (3, 2), "f4"), drawn(1, 24, (), "i2"), drawn(2, 24, (5,), "f8")
    write_shards(tmp_path, "train", {"x": x, "m": m}, {"y": y}, classes=0, shards=3)
    plan = TrainPlan(24, 4, 1, 3)
    groups = (plan.batches(0, step, 2, 0) for step in range(0, 6, 2))
    loader = Loader(Reader(Catalogue.open(tmp_path)), groups, threads=3)
    for step, batch in enumerate(loader):
        wanted = plan.indices(0, step, 0)
        for array, expected in zip(batch, (x, m, y), strict=True):
            np.testing.assert_array_equal(array, expected[wanted])


def test_plain_pairs_keep_the_second_version_of_the_format(tmp_path):
    for number, (x, y) in enumerate([(np.zeros((4, 2)), np.zeros(4)), ({"x": np.zeros((4, 2))}, np.zeros(4))]):
        (path,) = write_shards(tmp_path / str(number), "train", x, y, classes=0, shards=1)
        with h5py.File(path) as file:
            assert file.attrs["version"] == (2, 4)[number]
            assert ("parts" in file.attrs) == bool(number)


def refused(options):
    return refusal(options.catalogue, "train")


def test_what_does_not_fit_is_one_line(tmp_path):
    arrays = {"a": drawn(0, 6, (2,), "f4"), "b": drawn(1, 6, (3,), "f4"), "c": drawn(2, 6, (), "i4")}
    write_files(tmp_path, arrays, ["contiguous"] * 3, files=1)
    with h5py.File(tmp_path / "0.h5", "r+") as file:
        file["short"] = np.zeros(5)
    message = refused(DataOptions(data=tmp_path, inputs=("a", "b")))
    assert "only data sets of one shape and type can be stacked" in message
    assert "--inputs NAME=a OTHER=b" in message
    assert "--inputs b: has no name, but others have one" in refused(DataOptions(data=tmp_path, inputs=("x=a", "b")))
    assert "differ in their number of samples" in refused(DataOptions(data=tmp_path, inputs=("x=a", "y=short")))
    assert "--sample-weights needs --inputs" in refused(DataOptions(data=tmp_path, sample_weights="c"))
    several = DataOptions(data=tmp_path, inputs=("a",), targets=("x=b", "y=c"), classes=3)
    assert "there are several targets" in refused(several)
    catalogue = DataOptions(data=tmp_path, inputs=("x=a", "y=b")).catalogue("train")
    assert "has the inputs x, y, and one is asked for" in refusal(lambda: catalogue.input_shape)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named_with_their_part(tmp_path, bad):
    x, y, w = np.zeros((6, 2), "f4"), np.zeros((6, 3), "f4"), np.ones(6, "f4")
    for array, place, said in ((y, (4, 1), "in its target"), (w, (5,), "in its weight"), (x, (2, 0), "(")):
        array[place] = bad
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["x"], file["y"], file["w"] = x, y, w
        options = DataOptions(data=tmp_path / "a.h5", inputs=("x",), targets=("y",), sample_weights="w")
        message = refusal(Reader(options.catalogue(None)).read, range(6))
        assert f"row {place[0]} " in message
        assert said in message
        array[place] = 1


@settings(deadline=None, max_examples=30)
@given(
    labels=st.lists(st.integers(0, 255), min_size=1, max_size=6, unique=True),
    shape=st.sampled_from([(), (3,), (2, 2)]),
    seed=st.integers(0, 99),
)
def test_stored_labels_become_the_numbers_of_their_classes(tmp_path_factory, labels, shape, seed):
    folder = tmp_path_factory.mktemp("labels")
    classes = np.random.default_rng(seed).integers(0, len(labels), (7, *shape))
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"], file["y"] = np.zeros((7, 2)), np.array(labels, "u1")[classes]
    words = tuple(map(str, labels))
    options = DataOptions(data=folder, inputs=("x",), targets=("y",), label_values=words)
    catalogue = options.catalogue("train")
    assert catalogue.classes == len(labels)
    np.testing.assert_array_equal(Reader(catalogue).read(range(7))[1], classes)


def test_labels_that_are_not_named_are_refused_by_their_row(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.zeros((4, 2)), np.array([1, 2, 3, 7])
    options = {"data": tmp_path, "inputs": ("x",), "targets": ("y",)}
    catalogue = DataOptions(**options, label_values=("1..3",)).catalogue("train")
    assert Reader(catalogue).read([2, 0])[1].tolist() == [2, 0]
    message = refusal(Reader(catalogue).read, [3])
    assert "row 3" in message
    assert "has label 7, which --label-values does not name" in message
    message = refusal(Reader(DataOptions(**options, classes=3).catalogue("train")).read, [2])
    assert "--label-values 1..10" in message
    for words, said in ((("1", "1"), "twice"), (("x",), "whole numbers"), (("3..1",), "lower number first")):
        assert said in refused(DataOptions(**options, label_values=words))


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=2, max_size=12).filter(lambda some: sum(some[:1]) and sum(some[1:])),
    rest=st.sampled_from([(), (3,), (2, 2)]),
    storage=st.sampled_from(sorted(STORAGE)),
    most=st.none() | st.integers(1, 9),
    how=st.sampled_from(["auto", "read", "h5py"]),
    seed=st.integers(0, 99),
)
def test_sequences_of_different_lengths_are_padded_with_zeros(
    tmp_path_factory, lengths, rest, storage, most, how, seed
):
    folder = tmp_path_factory.mktemp("sequences")
    values = [drawn(seed + k, length, rest, "i4") + 1 for k, length in enumerate(lengths)]
    for number, part in enumerate((slice(0, 1), slice(1, None))):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file.create_dataset("tokens", data=np.concatenate(values[part]), **STORAGE[storage])
            file["count"], file["y"] = lengths[part], np.arange(len(lengths), dtype="f4")[part]
    names = {"inputs": ("tokens",), "targets": ("y",), "lengths": ("count",), "sequence_length": most}
    catalogue = DataOptions(data=folder, **names).catalogue("train")
    longest = most or max(lengths)
    expected = np.zeros((len(lengths), longest, *rest), "i4")
    for row, value in zip(expected, values, strict=True):
        row[: len(value)] = value[:longest]
    wanted = np.random.default_rng(seed).permutation(len(lengths))
    reader = Reader(catalogue, how=how)
    tokens, targets = reader.read(wanted)
    np.testing.assert_array_equal(tokens, expected[wanted])
    np.testing.assert_array_equal(targets, wanted)
    real = reader.steps(catalogue.inputs[0], wanted)
    np.testing.assert_array_equal(real.sum(1), np.minimum(lengths, longest)[wanted])


def test_lengths_that_do_not_fit_are_one_line(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["t"], file["y"], file["n"] = np.zeros(9, "i4"), np.zeros(3), [2, 3, 4]
        file["less"], file["float"], file["other"] = [2, 3, 3], np.ones(3), [4, 5]
    known = {"data": tmp_path, "inputs": ("t",), "targets": ("y",)}
    for lengths, said in (("less", "add up to 8, but t has 9"), ("float", "not whole numbers"), ("other", "differ in")):
        assert said in refused(DataOptions(**known, lengths=(lengths,)))
    assert "no input or target has the name 'z'" in refused(DataOptions(**known, lengths=("z=n",)))
    assert "--sequence-length is for" in refused(DataOptions(**known | {"inputs": ("n",)}, sequence_length=3))
    assert "--lengths needs --inputs" in refused(DataOptions(data=tmp_path, lengths=("n",)))


def test_statistics_of_sequences_leave_the_padding_out(tmp_path):
    from hpc_train.data.statistics import load_statistics
    from hpc_train.data.statistics.command import Stats
    from hpc_train.data.statistics.command import run as stats

    values = np.random.default_rng(0).normal(5, 2, (20, 3)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["t"], file["n"], file["y"] = values, [3, 0, 10, 7], np.arange(4.0)
    stats(Stats(data=tmp_path, inputs=("t",), targets=("y",), lengths=("n",)))
    found = load_statistics(tmp_path / "statistics.h5")
    assert found.samples == 4
    np.testing.assert_allclose(found.mean, values.mean(0, np.float64))
    np.testing.assert_allclose(found.std, values.std(0, dtype=np.float64))
    np.testing.assert_allclose(found.others["target"].mean, [1.5])
