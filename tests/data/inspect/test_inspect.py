"""`hpc-train inspect`: what it shows of data sets, of known and unknown layouts."""

import json

import h5py
import hdf5plugin  # noqa: F401 (h5py writes zstd with it)
import numpy as np
import pytest
import tyro
from realdata import real_data

from hpc_train.data.inspect.command import Inspect, run
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError
from hpc_train.units import size


def report(capsys, *arguments):
    """What is printed, by lines without the spaces around them."""
    capsys.readouterr()
    run(tyro.cli(Inspect, args=[str(argument) for argument in arguments]))
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def advice(lines):
    return [line.removeprefix("advice: ") for line in lines if line.startswith("advice: ")]


def reading(lines):
    return [line.removeprefix("is read: ") for line in lines if line.startswith("is read: ")]


def test_shards_are_shown_in_a_few_lines(tmp_path, capsys):
    for split, rows in (("train", 40), ("test", 10)):
        inputs, targets = np.zeros((rows, 8, 9, 3), "f4"), np.arange(rows) % 2
        write_shards(tmp_path, split, inputs, targets, classes=2, class_names=("cat", "dog"), shards=5)
    size_on_disk = sum(path.stat().st_size for path in tmp_path.glob("train*"))
    lines = report(capsys, "--data", tmp_path)
    assert lines[0].startswith("test: layout shards, 10 samples in 5 files, ")
    lines = report(capsys, "--data", tmp_path, "--split", "train")
    assert lines[:5] == [
        f"train: layout shards, 40 samples in 5 files, {size(size_on_disk)}",
        "a sample: inputs (8, 9, 3) float32, channels last; targets () int64",
        "classes: 2: cat, dog",
        f"in {tmp_path / 'train-00000-of-00005.h5'}:",
        "inputs: (8, 8, 9, 3) float32, little endian, contiguous",
    ]
    assert lines[6] == "targets: (8,) int64, little endian, contiguous"
    assert all("contiguous" in line for line in reading(lines))
    assert len(reading(lines)) == 2
    assert advice(lines) == []


def test_chunks_of_many_samples_are_shown_with_their_cost_in_a_shuffle(tmp_path, capsys):
    inputs = np.random.default_rng(0).integers(0, 9, (100, 16, 16)).astype("f4")
    options = {"classes": 1, "shards": 1, "compression": "gzip", "chunk_bytes": 25 * 1024}
    (path,) = write_shards(tmp_path, "train", inputs, np.zeros(100, "u1"), **options)
    with h5py.File(path) as file:
        ratio = inputs.nbytes / file["inputs"].id.get_storage_size()
    lines = report(capsys, "--data", tmp_path)
    assert (
        f"inputs: (100, 16, 16) float32, little endian, chunks (25, 16, 16) of {size(25 * 1024)}, shuffle + gzip + "
        f"fletcher32, {ratio:.2f} times smaller than its values" in lines
    )
    assert advice(lines) == [
        "inputs: chunks of 25 samples, compressed: a whole-epoch shuffle decodes 25 samples to use one; use --shuffle "
        "blocks, or `hpc-train shard` without compression or with smaller chunks",
        "inputs: gzip decodes slowly; `hpc-train shard --compression zstd`, or none, reads faster",
    ]


def cam5(folder, **storage):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        with h5py.File(folder / f"data-{number}.h5", "w") as file:
            file.create_dataset("climate/data", data=np.zeros((64, 64, 4), "f4"), **storage)
            file["climate/labels_0"] = np.zeros((64, 64), ">f4")


def test_a_folder_of_one_sample_files(tmp_path, capsys):
    cam5(tmp_path / "train", chunks=(1, 64, 4), compression="lzf")
    lines = report(capsys, "--data", tmp_path)
    assert lines[0].startswith("train: layout cam5, 3 samples in 3 files, ")
    assert lines[1] == "a sample: inputs (64, 64, 4) float32, channels last; targets (64, 64) float32"
    assert lines[2] == "classes: not known; give --classes"
    assert any(line.startswith("climate/labels_0: (64, 64) float32, big endian, contiguous") for line in lines)
    assert advice(lines) == [
        "climate/data: a sample lies in 64 chunks of 1.02 kB; `hpc-train shard` makes fewer, larger ones"
    ]


def test_files_that_are_stored_differently_are_named(tmp_path, capsys):
    cam5(tmp_path / "train")
    with h5py.File(tmp_path / "train" / "data-1.h5", "r+") as file:
        del file["climate/data"]
        file.create_dataset("climate/data", data=np.zeros((64, 64, 4), "f4"), chunks=True, compression="gzip")
    lines = report(capsys, "--data", tmp_path)
    assert lines.count(f"stored differently in {tmp_path / 'train' / 'data-1.h5'}") == 1


def test_data_that_only_h5py_reads_are_shown_with_the_reason(tmp_path, capsys):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.arange(64).reshape(4, 16), chunks=(1, 16), scaleoffset=0)
    lines = report(capsys, "--data", tmp_path / "a.h5", "--inputs", "x")
    assert reading(lines)[0].startswith("through h5py")
    assert "scaleoffset" in " ".join(lines)
    assert advice(lines) == ["x: read by one thread at a time; `hpc-train shard` stores it for parallel reading"]
    assert "targets none" in lines[1]


@pytest.fixture
def foreign(tmp_path):
    """A file as another program writes it: fields, their labels, coordinates and a text."""
    path = tmp_path / "foreign.nc"
    with h5py.File(path, "w") as file:
        for name in ("u", "v"):
            field = file.create_dataset(f"fields/{name}", (20, 6, 7), "i2", chunks=(1, 6, 7), compression="gzip")
            field.attrs.update(scale_factor=0.05, add_offset=3.0, _FillValue=np.int16(-32767))
        file["fields/v"].attrs.update(missing_value=np.int16(-9), valid_max=np.int16(3000))
        file["labels"] = np.zeros((20, 6, 7), "u1")
        file["lat"] = np.zeros(6)
        file["lat"].make_scale()
        file["comment"] = "made up"
    return path


def test_a_file_of_unknown_layout_is_listed_with_the_options_to_give(foreign, capsys):
    lines = report(capsys, "--data", foreign)
    assert lines[0] == f"train: 1 file of unknown layout; {foreign} holds"
    shown = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in lines[1:6]}
    assert set(shown) == {"fields/u", "fields/v", "labels", "lat", "comment"}
    assert shown["fields/u"].startswith("(20, 6, 7) int16, little endian, chunks (1, 6, 7) of 84 bytes, gzip")
    assert shown["fields/u"].endswith("missing -32767 (packed: scale_factor, add_offset)")
    assert shown["fields/v"].endswith("missing -32767 -9, valid to 3000 (packed: scale_factor, add_offset)")
    assert shown["labels"] == "(20, 6, 7) uint8, contiguous"
    assert shown["comment"].startswith("() object")
    assert lines[6] == "Name the data sets to use, for example --inputs fields/u fields/v --targets labels"
    assert "the first axis as the samples (20 in this file); if the file is one sample, add --samples files" in lines[7]
    # The advised options work.
    lines = report(capsys, "--data", foreign, "--inputs", "fields/u", "fields/v", "--targets", "labels")
    assert lines[1] == "a sample: inputs (2, 6, 7) int16, channels first; targets (6, 7) uint8"
    assert advice(lines)[0] == (
        "fields/u, fields/v: packed, and delivered as stored: value = stored * 0.05 + 3; `hpc-train shard` stores the "
        "values, as float32"
    )


def test_json_gives_the_same_as_plain_values(foreign, tmp_path, capsys):
    held = json.loads("\n".join(report(capsys, "--data", foreign, "--json")))
    assert held["data"] == str(foreign)
    (split,) = held["splits"]
    assert split["layout"] is None
    by_name = {entry["name"]: entry for entry in split["datasets"]}
    assert by_name["fields/v"]["packed"] == [0.05, 3.0]
    assert (by_name["labels"]["shape"], by_name["labels"]["dtype"]) == ([20, 6, 7], "uint8")
    write_shards(tmp_path, "train", np.zeros((9, 4)), np.zeros(9, "u1"), classes=3, shards=3, compression="zstd")
    held = json.loads("\n".join(report(capsys, "--data", tmp_path, "--json")))
    (split,) = held["splits"]
    assert (split["layout"], split["files"], split["samples"], split["classes"]) == ("shards", 3, 9, 3)
    assert split["datasets"][0]["filters"] == ["shuffle", "zstd", "fletcher32"]
    assert split["datasets"][0]["reading"]


def test_data_that_cannot_be_opened_are_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "old.nc").write_bytes(b"CDF\x01" + bytes(60))
    (tmp_path / "text.h5").write_text("no HDF5")
    for name, expected in (
        ("old.nc", "classic NetCDF, not HDF5; convert it with `nccopy -k nc4 in.nc out.nc`"),
        ("text.h5", "not an HDF5 file; fetch or write it again"),
        ("none.h5", "no such file or folder"),
    ):
        with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
            report(capsys, "--data", tmp_path / name)
        assert expected in str(caught.value)


def test_a_wrong_name_of_a_data_set_is_refused_and_the_names_are_listed(foreign, capsys):
    with pytest.raises(UserError, match=r"has no data set 'w'; it has .*fields/u, fields/v"):
        report(capsys, "--data", foreign, "--inputs", "w")


def test_real_packed_forecasts(capsys):
    path = real_data("gfs_wind_1deg") / "gfs_wind10m_2018.nc"
    lines = report(capsys, "--data", path)
    assert "Name the data sets to use, for example --inputs u10 v10" in lines
    lines = report(capsys, "--data", path, "--inputs", "u10", "v10")
    assert lines[0].startswith("train: layout custom, 101 samples in 1 file, 14 MB")
    assert "u10, v10: packed, and delivered as stored: value = stored * 0.05 + 0;" in advice(lines)[0]


def test_sizes_for_people():
    assert [size(n) for n in (0, 999, 1000, 56_623_104, 3.5e12)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "56.6 MB",
        "3.5 TB",
    ]
