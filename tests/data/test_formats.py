"""Data sets of any layout: which files are found, what the catalogue learns, and that they read as h5py does."""

import json
import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.data.catalogue import Catalogue, survey
from hpc_train.data.catalogue.layout import Layout, find_splits, list_files
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError
from hpc_train.files.seal import sealed_text

DTYPES = ["u1", "<i2", ">i2", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<u4", "<i8"]


def draw(shape, dtype, seed=0):
    """Random bits of the dtype, so that NaN and other odd values occur."""
    bits = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    return bits.view(dtype)[..., 0]


def same_bits(a, b):
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.shape == b.shape and a.tobytes() == b.astype(a.dtype.newbyteorder("="), copy=False).tobytes()


def native(array):
    return array.byteswap().view(array.dtype.newbyteorder("=")) if not array.dtype.isnative else array


def refusal(function, *args, **options):
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cam5(folder, samples=3, shape=(6, 8, 4)):
    """One sample a file, as the CAM5 data are published: climate/data channels last, labels as floats."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(samples):
        with h5py.File(folder / f"data-1996-06-{number:02d}-00-1.h5", "w") as file:
            file["climate/data"] = np.random.default_rng(number).normal(size=shape).astype("f4")
            for layer in (0, 1):
                labels = np.random.default_rng(number + layer).integers(0, 3, shape[:2])
                file[f"climate/labels_{layer}"] = labels.astype("f4")
            file["climate/data_stats"] = np.zeros((4, shape[-1]), "f4")
    return folder


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    rows=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    chunked=st.booleans(),
    how=st.sampled_from(["auto", "map", "read", "h5py"]),
    seed=st.integers(0, 99),
)
def test_rows_of_one_big_file_read_as_h5py_reads_them(tmp_path_factory, shape, rows, dtype, chunked, how, seed):
    path = tmp_path_factory.mktemp("big") / "all.h5"
    data, labels = draw((rows, *shape), dtype, seed), draw((rows, 2), "<i4", seed + 1)
    with h5py.File(path, "w") as file:
        options = {"chunks": True, "compression": "gzip", "maxshape": (None, *shape)} if chunked else {}
        file.create_dataset("group/x", data=data, **options)
        file["y"] = labels
    catalogue = DataOptions(data=path, inputs=("group/x",), targets=("y",)).catalogue("train")
    wanted = np.random.default_rng(seed).integers(0, rows, 11)
    inputs, targets = Reader(catalogue, check=False, how=how).read(wanted)
    assert inputs.dtype.isnative
    assert same_bits(inputs, native(data)[wanted])
    assert same_bits(targets, labels[wanted])


@pytest.mark.parametrize("how", ["auto", "read", "h5py"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_variables_are_stacked_as_channels_and_an_index_picks_a_layer(tmp_path, how, compression):
    planes = {name: draw((5, 2, 6, 7), ">f4", seed) for seed, name in enumerate(("u", "v", "q"))}
    with h5py.File(tmp_path / "a.nc", "w") as file:
        for name, plane in planes.items():
            file.create_dataset(name, data=plane, compression=compression, chunks=(1, 1, 6, 7) if compression else None)
    options = DataOptions(data=tmp_path, inputs=("u[1]", "v[0]"), targets=("q",))
    catalogue = options.catalogue("train")
    assert (catalogue.input_shape, catalogue.target_shape, catalogue.channel_axis) == ((2, 6, 7), (2, 6, 7), 0)
    inputs, targets = Reader(catalogue, check=False, how=how).read([4, 0, 4])
    assert same_bits(inputs[:, 0], native(planes["u"])[[4, 0, 4], 1])
    assert same_bits(inputs[:, 1], native(planes["v"])[[4, 0, 4], 0])
    assert same_bits(targets, native(planes["q"])[[4, 0, 4]])


def test_published_cam5_files_are_recognised_and_split_by_folder(tmp_path):
    for split, samples in (("train", 3), ("validation", 2), ("test", 1)):
        cam5(tmp_path / split, samples)
    assert find_splits(tmp_path) == ["train", "validation", "test"]
    catalogue = DataOptions(data=tmp_path).catalogue("validation")
    assert (catalogue.layout.name, catalogue.samples, catalogue.channel_axis) == ("cam5", 2, 2)
    inputs, targets = Reader(catalogue).read([1, 0])
    with h5py.File(catalogue.files[1]) as file:
        assert same_bits(inputs[0], file["climate/data"][:])
        assert same_bits(targets[0], file["climate/labels_0"][:])


def test_the_papers_files_are_recognised_with_channels_first(tmp_path):
    with h5py.File(tmp_path / "data-1.h5", "w") as file:
        file["climate/data"] = draw((4, 6, 8), "<f4")
        file["climate/labels"] = np.zeros((2, 6, 8), "f4")
    catalogue = DataOptions(data=tmp_path).catalogue("train")
    assert (catalogue.layout.name, catalogue.input_shape, catalogue.target_shape) == ("paper", (4, 6, 8), (2, 6, 8))
    assert catalogue.channel_axis == 0


def test_climatenet_files_give_their_variables_in_the_order_of_cam5(tmp_path):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(tmp_path / "data-1996.nc", "w") as file:
        for name, size in (("time", 1), ("lat", 6), ("lon", 8)):
            file.createDimension(name, size)
            file.createVariable(name, "f8", (name,))[:] = np.arange(size)
        for number, name in enumerate(("LABELS", "PSL", "V850", "TMQ")):
            file.createVariable(name, "f4" if number else "i8", ("time", "lat", "lon"))[:] = number
    catalogue = DataOptions(data=tmp_path).catalogue("train")
    assert catalogue.layout.inputs == ("TMQ", "V850", "PSL")
    inputs, targets = Reader(catalogue).read([0])
    assert inputs[0, :, 0, 0].tolist() == [3, 2, 1]
    assert (targets == 0).all()
    assert targets.shape == (1, 6, 8)


@pytest.mark.parametrize("one_time", ["fields", "labels"])
def test_climatenet_files_may_have_an_axis_of_one_time_on_either_side(tmp_path, one_time):
    fields, labels = np.arange(96, dtype="f4").reshape(2, 6, 8), np.ones((6, 8), "i8")
    with h5py.File(tmp_path / "a.nc", "w") as file:
        for name, values in zip(("PSL", "TMQ"), fields, strict=True):
            file[name] = values[None] if one_time == "fields" else values
        file["LABELS"] = labels[None] if one_time == "labels" else labels
    inputs, targets = Reader(DataOptions(data=tmp_path).catalogue("train")).read([0])
    assert same_bits(inputs[0], fields[::-1])
    assert same_bits(targets[0], labels)
    with h5py.File(tmp_path / "a.nc", "r+") as file:
        del file["LABELS"]
        file["LABELS"] = np.ones((5, 6, 8), "i8")
    assert "LABELS (5, 6, 8) does not fit the fields" in refusal(DataOptions(data=tmp_path).catalogue, "train")


def test_packed_values_are_given_as_stored_with_their_scale_in_the_catalogue(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["u"] = np.arange(6, dtype="i2").reshape(2, 3)
        file["u"].attrs.update(scale_factor=[0.05], add_offset=[10.0])
    catalogue = DataOptions(data=tmp_path, inputs=("u",)).catalogue("train")
    assert catalogue.packing == ((0.05, 10.0),)
    assert Reader(catalogue).read([1])[0].tolist() == [[3, 4, 5]]
    with h5py.File(tmp_path / "b.nc", "w") as file:
        file["u"] = np.zeros((2, 3), "i2")
    message = refusal(DataOptions(data=tmp_path, inputs=("u",)).catalogue, "train")
    assert message.startswith(f"{tmp_path / 'b.nc'}: input packing is")


def test_a_pattern_and_a_folder_find_the_same_files(tmp_path):
    cam5(tmp_path / "train", 3)
    (tmp_path / "train" / "readme.txt").write_text("")
    (tmp_path / "train" / "stats.h5").write_bytes(b"")
    (tmp_path / "train" / ".hidden.h5").write_bytes(b"")
    folder = DataOptions(data=tmp_path).catalogue("train")
    pattern = DataOptions(data=tmp_path / "*" / "data-*.h5").catalogue("train")
    assert folder.files == pattern.files == tuple(sorted(map(str, (tmp_path / "train").glob("data*"))))
    assert len(list_files(tmp_path)) == 3


UNKNOWN = {
    "nothing there": (lambda folder: folder / "none", {}, "no such file or folder"),
    "a pattern without a match": (lambda folder: folder / "*.hdf", {}, "no file matches this pattern"),
    "an unknown layout": (lambda folder: folder, {}, "--inputs and --targets; it has x (4, 2), y (4,)"),
    "a data set that is not there": (lambda folder: folder, {"inputs": ("z",)}, "has no data set 'z'; it has x, y"),
    "an index too large": (lambda folder: folder, {"inputs": ("x[2]",)}, "asks for index 2 of a sample of shape (2,)"),
    "first axes that differ": (lambda folder: folder, {"inputs": ("x",), "targets": ("short",)}, "differ in their"),
    "targets alone": (lambda folder: folder, {"targets": ("y",)}, "--targets needs --inputs"),
    "options of other layouts": (lambda folder: folder, {"samples": "files"}, "are for data sets named with --inputs"),
    "no classes": (lambda folder: folder, {"inputs": ("x",), "classes": 0}, "--classes is 0; it must be at least 1"),
    "an empty data set": (lambda folder: folder, {"inputs": ("empty",)}, "empty is empty; choose another"),
    "two layouts": (lambda folder: folder, {"inputs": ("x",), "layout": "cam5"}, "give one of the two"),
    "text": (lambda folder: folder, {"inputs": ("text",)}, "not numbers"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_missing_data_are_named_with_a_remedy(tmp_path, case):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.zeros((4, 2)), np.zeros(4, int)
        if case not in ("an unknown layout", "a data set that is not there"):
            file["short"], file["text"], file["empty"] = np.zeros(3), b"abc", h5py.Empty("f4")
    where, options, expected = UNKNOWN[case]
    assert expected in refusal(DataOptions(data=where(tmp_path), **options).catalogue, "train")


def test_files_that_do_not_fit_each_other_are_named(tmp_path):
    cam5(tmp_path, 2)
    cam5(tmp_path / "other", 1, shape=(6, 8, 5))
    os.rename(tmp_path / "other" / "data-1996-06-00-00-1.h5", tmp_path / "data-9.h5")
    message = refusal(DataOptions(data=tmp_path).catalogue, "train")
    assert message.startswith(f"{tmp_path / 'data-9.h5'}: input shape is (6, 8, 5), but (6, 8, 4) in ")


def test_a_classic_netcdf_file_is_not_called_damaged(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"CDF\x01" + bytes(100))
    assert "classic NetCDF" in refusal(DataOptions(data=tmp_path).catalogue, "train")
    (tmp_path / "a.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert "damaged, or beyond this version of HDF5 (" in refusal(DataOptions(data=tmp_path).catalogue, "train")


class Pair:
    """Two ranks that take turns in one process: enough for a survey, whose only collectives are these."""

    size = 2

    def __init__(self, rank, mine):
        self.rank, self.mine = rank, mine

    def bcast(self, obj, root=0):
        return obj

    def allgather(self, obj):
        self.mine.append(obj)
        raise StopIteration


def test_ranks_share_the_files_and_open_each_once(tmp_path, monkeypatch):
    folder = cam5(tmp_path / "train", 5)
    layout = Catalogue.open(folder).layout
    files = list_files(folder)
    opened = []
    inspect = survey.inspect_file
    monkeypatch.setattr(survey, "inspect_file", lambda path, *rest: opened.append(path) or inspect(path, *rest))
    shares = []
    for rank in (0, 1):
        with pytest.raises(StopIteration):
            survey.survey(files, layout, "train", Pair(rank, shares))
    assert sorted(opened) == files
    assert [len(mine) for mine, _, _ in shares] == [3, 2]


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A folder of as many files as the cache wants, and the list of those that were opened since."""
    monkeypatch.setattr(survey, "LEAST_CACHED", 4)
    opened = []
    inspect = survey.inspect_file
    monkeypatch.setattr(survey, "inspect_file", lambda path, *rest: opened.append(path) or inspect(path, *rest))
    return cam5(tmp_path / "train", 6), opened


def test_a_second_start_opens_no_file(many):
    folder, opened = many
    first = Catalogue.open(folder)
    assert len(opened) == 6
    opened.clear()
    second = Catalogue.open(folder)
    assert opened == []
    assert second.files == first.files
    assert np.array_equal(second.at, first.at)
    assert (second.input_shape, second.input_dtype) == (first.input_shape, first.input_dtype)
    (folder / "data-1996-06-02-00-1.h5").rename(folder / "data-1996-07-02-00-1.h5")
    assert Catalogue.open(folder).samples == 6
    assert opened == [str(folder / "data-1996-07-02-00-1.h5")]


def test_a_file_that_changed_is_looked_at_again_and_a_damaged_cache_is_made_anew(many):
    folder, opened = many
    Catalogue.open(folder)
    opened.clear()
    with h5py.File(folder / "data-1996-06-01-00-1.h5", "r+") as file:
        file["more"] = 1
    Catalogue.open(folder)
    assert opened == [str(folder / "data-1996-06-01-00-1.h5")]
    (cache,) = folder.glob(".hpc-train-catalogue-*.json")
    text, sealed = sealed_text(cache)
    assert sealed
    held = {**json.loads(text), "version": 3}
    damages = "{", "[]", text, json.dumps({**held, "version": 0}), json.dumps({**held, "files": {"x": [1]}})
    for damage in damages:
        cache.write_text(damage)
        opened.clear()
        assert Catalogue.open(folder).samples == 6
        assert len(opened) == 6


def test_the_cache_goes_to_the_users_folder_where_the_data_cannot_be_written(many, monkeypatch, tmp_path):
    folder, opened = many
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(path):
        if path.parent == folder:
            raise PermissionError
        return atomic(path)

    atomic = survey.atomic_path
    monkeypatch.setattr(survey, "atomic_path", refuse)
    Catalogue.open(folder)
    opened.clear()
    Catalogue.open(folder)
    assert opened == []
    assert not list(folder.glob(".hpc*"))
    assert list((tmp_path / "cache").rglob("*.json"))


def test_shards_are_opened_by_what_their_folder_holds(tmp_path):
    write_shards(tmp_path, "test", np.zeros((4, 3), "f4"), np.zeros(4, int), classes=2)
    assert find_splits(tmp_path) == ["test"]
    assert DataOptions(data=tmp_path).catalogue(None).samples == 4
    with pytest.raises(UserError, match="holds shards, not layout cam5"):
        DataOptions(data=tmp_path, layout="cam5").catalogue("test")


def test_a_single_file_of_several_shards_is_refused(tmp_path):
    paths = write_shards(tmp_path, "test", np.zeros((4, 3), "f4"), np.zeros(4, int), classes=2, shards=2)
    message = refusal(DataOptions(data=paths[0]).catalogue, "test")
    assert "holds 2 of the 4 samples of its split; give the folder" in message
    message = refusal(DataOptions(data=paths[0]).catalogue, "train")
    assert "a shard of split 'test', not 'train'" in message


def test_two_splits_of_shards_in_one_folder_are_both_known_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "LEAST_CACHED", 4)
    for split in ("train", "test"):
        write_shards(tmp_path, split, np.zeros((8, 3), "f4"), np.zeros(8, int), classes=2, shards=4)
        Catalogue.open(tmp_path, split)
    monkeypatch.setattr(survey, "inspect_file", None)
    for split in ("train", "test"):
        assert Catalogue.open(tmp_path, split).samples == 8


def test_a_request_of_many_files_holds_few_of_them_open(tmp_path, monkeypatch):
    with_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    cam5(tmp_path / "train", 120, shape=(2, 3, 1))
    catalogue = Catalogue.open(tmp_path)
    monkeypatch.setattr("hpc_train.data.reading.reader._OPEN_FILES", 8)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, with_limit[1]))
    try:
        inputs, _ = Reader(catalogue).read(np.arange(120)[::-1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, with_limit)
    for number in (0, 77):
        with h5py.File(catalogue.files[119 - number]) as file:
            np.testing.assert_array_equal(inputs[number], file["climate/data"])


def test_h5py_reads_the_filters_of_plugins_in_a_process_that_knows_none(tmp_path):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    data = np.random.default_rng(0).normal(size=(6, 40)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=data, chunks=(2, 40), **hdf5plugin.Zstd())
    program = f"""
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
catalogue = DataOptions(data={str(tmp_path)!r}, inputs=("x",)).catalogue("train")
print(Reader(catalogue, how="h5py").read([5])[0].tobytes().hex())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == data[5].tobytes().hex(), done.stderr


def test_each_data_set_is_described_by_how_it_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["small"] = np.zeros((3, 4))
        file["large"] = np.zeros((3, 128, 128))
        file.create_dataset("packed", data=np.zeros((3, 4)), chunks=(1, 4), compression="gzip")
        file.create_dataset("offset", data=np.zeros((3, 4), int), chunks=(1, 4), scaleoffset=0)
    said = {}
    for name in ("small", "large", "packed", "offset"):
        catalogue = Catalogue.open(tmp_path, layout=Layout("custom", (name,), (), True, "last"))
        (said[name],) = Reader(catalogue).describe()
    assert "gathered from a map" in said["small"]
    assert "positioned reads" in said["large"]
    assert "gzip" in said["packed"]
    assert "through h5py" in said["offset"]
    assert "scaleoffset" in said["offset"]
