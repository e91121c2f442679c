"""`hpc-train verify`: it lists everything that is broken, and nothing else."""

import os

import h5py
import hdf5plugin  # noqa: F401 (h5py writes zstd with it)
import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import run_mpi

from hpc_train.data.catalogue.layout import SHARDS, Layout
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.verify.command import Verify, run
from hpc_train.data.verify.scan import ranges, scan
from hpc_train.errors import UserError

VERIFY = (
    "from hpc_train import command_line; from hpc_train.data.verify.command import Verify, run;"
    "command_line.main(Verify, run, 'verify')"
)
SHARD = "train-00001-of-00003.h5"


def verify(*arguments):
    run(tyro.cli(Verify, args=[str(argument) for argument in arguments]))


def broken(capsys, *arguments):
    """The things named as broken; the command must have failed with one line."""
    capsys.readouterr()
    with pytest.raises(UserError) as caught:
        verify(*arguments)
    assert "\n" not in str(caught.value)
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("broken: ")]
    what = "1 thing is broken" if len(found) == 1 else f"{len(found)} things are broken"
    assert what in str(caught.value)
    return [line.removeprefix("broken: ") for line in found]


def samples(n=30, shape=(64, 32, 4), seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, *shape)).astype("f4"), draw.integers(0, 3, (n, *shape[:2])).astype("u1")


@pytest.fixture(params=["none", "zstd", "gzip"])
def stored(request):
    """How the shards are compressed."""
    return request.param


@pytest.fixture
def folder(tmp_path, stored):
    """30 samples in 3 shards, chunks or runs of 2 samples."""
    options = {"classes": 3, "shards": 3, "compression": stored, "chunk_bytes": 2 * 64 * 32 * 4 * 4}
    write_shards(tmp_path / "data", "train", *samples(), **options)
    return tmp_path / "data"


def test_data_without_faults_give_one_line_for_each_split(folder, capsys):
    write_shards(folder, "test", *samples(4), classes=3, shards=2)
    verify("--data", folder)
    lines = capsys.readouterr().out.splitlines()
    # 30 samples of 32,768 bytes of inputs and 2,048 of targets.
    said = ["test: 2 files, 4 samples, 139 kB, ", "train: 3 files, 30 samples, 1.04 MB, "]
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True)), lines
    assert all(line.endswith("B/s: no faults found") for line in lines)


def flip(path, name, row):
    """Flip a bit in the stored bytes of a row that is not among the first or last two."""
    with h5py.File(path) as file:
        dataset = file[name]
        if dataset.chunks is None:
            at = dataset.id.get_offset() + dataset[0].nbytes * row + dataset[0].nbytes // 2
        else:
            chunk = dataset.id.get_chunk_info_by_coord((row, *[0] * (dataset.ndim - 1)))
            at = chunk.byte_offset + chunk.size // 2
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_flipped_bit_is_found_and_its_rows_are_named(folder, stored, capsys):
    flip(folder / SHARD, "inputs", 5)
    (problem,) = broken(capsys, "--data", folder)
    if stored == "none":
        # A run of rows with one checksum is as long as a chunk.
        assert problem == f"{folder / SHARD}: inputs: rows 4 to 5 differ from what was written (checksum)"
    else:
        assert problem.startswith(
            f"{folder / SHARD}: inputs: the chunk at (4, 0, 0, 0), of rows 4 to 5, cannot be decoded ("
        )


def test_every_chunk_that_is_broken_is_named(folder, stored, capsys):
    for row in (0, 5, 9):
        flip(folder / SHARD, "inputs", row)
    flip(folder / SHARD, "targets", 2)
    flip(folder / "train-00002-of-00003.h5", "inputs", 1)
    problems = broken(capsys, "--data", folder)
    if stored == "none":
        assert [problem.split(": ", 1)[1] for problem in problems] == [
            "inputs: rows 0 to 1, 4 to 5, 8 to 9 differ from what was written (checksum)",
            "targets: rows 0 to 9 differ from what was written (checksum)",
            "inputs: rows 0 to 1 differ from what was written (checksum)",
        ]
    else:
        where = [problem.split("chunk at (")[1].split(",")[0] for problem in problems]
        assert where == ["0", "4", "8", "0", "0"]


def rewrite(path, name, row, value):
    """Change a value through HDF5, which keeps its own checksums right."""
    with h5py.File(path, "r+") as file:
        file[name][row] = value


def test_values_that_are_wrong_are_named_with_their_rows(folder, capsys):
    rewrite(folder / SHARD, "inputs", (2, 3, 3, 1), np.nan)
    rewrite(folder / SHARD, "inputs", (7, 0, 0, 0), -np.inf)
    rewrite(folder / SHARD, "inputs", (8, 0, 0, 0), np.inf)
    rewrite(folder / SHARD, "targets", (9, 63, 31), 7)
    problems = [problem.split(": ", 1)[1] for problem in broken(capsys, "--data", folder)]
    assert "inputs: NaN or infinity in rows 2, 7 to 8" in problems
    assert "inputs: rows 2 to 3, 6 to 9 differ from what was written (checksum)" in problems
    assert "targets: label 7, outside the 3 classes (0 to 2), in row 9" in problems


def test_broken_files_do_not_hide_the_others(folder, capsys):
    os.truncate(folder / "train-00000-of-00003.h5", (folder / "train-00000-of-00003.h5").stat().st_size - 1)
    (folder / SHARD).write_bytes(b"no HDF5")
    rewrite(folder / "train-00002-of-00003.h5", "inputs", (4, 3, 3, 1), np.nan)
    problems = broken(capsys, "--data", folder)
    for number, text in ((0, "truncated: "), (1, "not an HDF5 file")):
        assert problems[number].startswith(f"{folder / f'train-0000{number}-of-00003.h5'}: {text}")
    assert problems[2] == f"{folder / 'train-00002-of-00003.h5'}: inputs: NaN or infinity in row 4"


def test_missing_mixed_and_disagreeing_shards_are_named(folder, tmp_path, capsys):
    inputs, targets = samples()
    write_shards(tmp_path / "other", "train", inputs[:, :, :, :2], targets, classes=3, shards=3)
    os.replace(tmp_path / "other" / SHARD, folder / SHARD)
    problems = broken(capsys, "--data", folder)
    assert problems[0] == f"{folder / SHARD}: input shape is (64, 32, 2), but (64, 32, 4) in most files"
    (folder / SHARD).unlink()
    assert broken(capsys, "--data", folder) == [f"{folder / SHARD}: missing"]
    write_shards(tmp_path / "two", "train", inputs, targets, classes=3, shards=2)
    for path in (tmp_path / "two").iterdir():
        os.replace(path, folder / path.name)
    assert (
        broken(capsys, "--data", folder)[0]
        == f"{folder}: shards of two generations of 'train' (of 2 and 3 files) are mixed"
    )


def test_gaps_in_the_sequence_of_shards_are_named(folder, capsys):
    with h5py.File(folder / SHARD, "r+") as file:
        file.attrs["first"] = 11
    assert broken(capsys, "--data", folder) == [
        f"{folder / SHARD}: records its first row as sample 11, but 10 rows precede it"
    ]


def test_a_shard_without_the_others_and_too_few_samples_are_named(folder, capsys):
    assert broken(capsys, "--data", folder / SHARD) == [f"{folder / SHARD}: holds 10 of the 30 samples of its split"]
    for path in folder.iterdir():
        with h5py.File(path, "r+") as file:
            file.attrs["total"] = 31
    last = folder / "train-00002-of-00003.h5"
    assert broken(capsys, "--data", folder) == [f"{last}: the shards hold 30 samples, but record 31"]


def test_shards_of_version_1_have_no_checksums_and_pass(folder, capsys):
    for path in folder.iterdir():
        with h5py.File(path, "r+") as file:
            del file["checksums"], file.attrs["channels"]
            file.attrs["version"] = 1
    verify("--data", folder)
    assert "no faults found" in capsys.readouterr().out


def test_too_few_checksums_are_named(folder, capsys):
    with h5py.File(folder / SHARD, "r+") as file:
        run = file["checksums/inputs"].attrs["rows"]
        del file["checksums/inputs"]
        file["checksums/inputs"] = np.zeros(3, "u8")
        file["checksums/inputs"].attrs["rows"] = run
    assert broken(capsys, "--data", folder) == [f"{folder / SHARD}: inputs: has 3 checksums, but 5 runs of 2 rows"]


def cam5(folder, files=5):
    """One-sample files in the published CAM5 layout."""
    inputs, labels = samples(files)
    folder.mkdir()
    for number in range(files):
        with h5py.File(folder / f"data-{number}.h5", "w") as file:
            file.create_dataset(
                "climate/data", data=inputs[number], chunks=(8, 32, 4), compression="gzip", fletcher32=True
            )
            file["climate/labels_0"] = labels[number].astype("f4")


def test_other_layouts_are_checked_as_well(tmp_path, capsys):
    cam5(tmp_path / "train")
    verify("--data", tmp_path)
    assert capsys.readouterr().out.endswith(
        "no faults found; label values are not checked, because --classes is not given\n"
    )
    verify("--data", tmp_path, "--classes", 3)
    assert capsys.readouterr().out.endswith("no faults found\n")
    flip(tmp_path / "train" / "data-1.h5", "climate/data", 20)
    rewrite(tmp_path / "train" / "data-2.h5", "climate/data", (60, 0, 0), np.nan)
    rewrite(tmp_path / "train" / "data-3.h5", "climate/labels_0", (5, 5), 0.5)
    with h5py.File(tmp_path / "train" / "data-4.h5", "r+") as file:
        del file["climate/labels_0"]
    (tmp_path / "train" / "data-0.h5").write_bytes(b"")
    problems = broken(capsys, "--data", tmp_path, "--classes", 3)
    folder = tmp_path / "train"
    assert len(problems) == 5
    assert problems[0].startswith(f"{folder / 'data-0.h5'}: an empty file; fetch or write it again")
    assert problems[1].startswith(
        f"{folder / 'data-1.h5'}: climate/data: the chunk at (16, 0, 0), of rows 16 to 23, cannot"
    )
    assert problems[2] == f"{folder / 'data-2.h5'}: climate/data: NaN or infinity in line 60"
    assert (
        problems[3] == f"{folder / 'data-3.h5'}: climate/labels_0: label 0.5, outside the 3 classes (0 to 2), in line 5"
    )
    assert problems[4].startswith(f"{folder / 'data-4.h5'}: has no data set 'climate/labels_0'")


def test_a_long_list_is_cut_and_the_rest_counted(tmp_path, capsys):
    cam5(tmp_path / "train", files=9)
    for path in (tmp_path / "train").iterdir():
        rewrite(path, "climate/data", (1, 1, 1), np.nan)
    with pytest.raises(UserError, match="9 things are broken"):
        verify("--data", tmp_path, "--most", 4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[4] == "... and 5 more"


def test_data_that_cannot_be_found_or_recognised_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        verify("--data", tmp_path / "nowhere")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(UserError, match="the layout is unknown"):
        verify("--data", tmp_path / "a.h5")


@pytest.mark.parametrize("arguments", [(), ("--split", "train")])
def test_a_folder_that_cannot_be_listed_is_refused_in_one_line(folder, monkeypatch, arguments):
    def refuse(path):
        raise PermissionError(13, os.strerror(13), path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(UserError, match=r"data: the folder cannot be read \(Permission denied\)"):
        verify("--data", folder, *arguments)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 12),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    byte=st.floats(0, 1, exclude_max=True),
    dtype=st.sampled_from(["u1", "<i4", "f4"]),
    chunk_bytes=st.integers(1, 200),
)
def test_any_changed_byte_of_uncompressed_data_is_found_in_its_run(
    tmp_path_factory, rows, shape, byte, dtype, chunk_bytes
):
    folder = tmp_path_factory.mktemp("shards")
    inputs = np.random.default_rng(rows).integers(0, 50, (rows, *shape)).astype(dtype)
    (path,) = write_shards(folder, "train", inputs, np.zeros(rows, "u1"), classes=1, shards=1, chunk_bytes=chunk_bytes)
    assert scan(str(path), SHARDS, "train").problems == []
    with h5py.File(path) as file:
        start, size = file["inputs"].id.get_offset(), inputs.nbytes
        run = file["checksums/inputs"].attrs["rows"]
    at = int(byte * size)
    raw = bytearray(path.read_bytes())
    raw[start + at] ^= 1
    path.write_bytes(raw)
    row = at // (size // rows)
    first = row // run * run
    expected = ranges(range(first, min(rows, first + run)), "row")
    assert (
        f"{path}: inputs: {expected} differ from what was written (checksum)"
        in scan(str(path), SHARDS, "train").problems
    )


@pytest.mark.parametrize("rows", [True, False])
def test_an_index_into_the_first_axis_of_a_sample_is_followed(tmp_path, rows):
    labels = np.zeros((2, 6, 5), "f4")
    labels[1, 4, 2] = 9
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((3, 2, 6, 5) if rows else (2, 6, 5))
        file["y"] = np.broadcast_to(labels, (3, 2, 6, 5)) if rows else labels
    for index, where in ((0, None), (1, "rows 0 to 2" if rows else "line 4")):
        layout = Layout("custom", ("x",), (f"y[{index}]",), rows, "last")
        problems = scan(str(path), layout, None, classes=3).problems
        assert problems == ([f"{path}: y[1]: label 9.0, outside the 3 classes (0 to 2), in {where}"] if where else [])


def test_ranges_of_numbers():
    assert ranges([3], "row") == "row 3"
    assert ranges([3, 7, 8, 9], "row") == "rows 3, 7 to 9"
    assert ranges(range(0, 24, 2), "row") == "rows 0, 2, 4, 6, 8, 10, 12, 14 and 4 more"


def test_ranks_share_the_files_and_end_alike(folder):
    def ranks():
        return run_mpi(2, "-c", VERIFY, "--data", folder)

    ended = ranks()
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("train: 3 files, 30 samples, ")
    assert ended.stdout.count("\n") == 1
    for number in (0, 1):
        rewrite(folder / f"train-0000{number}-of-00003.h5", "targets", (0, 0, 0), 4)
    ended = ranks()
    assert ended.returncode == 2
    assert ended.stdout.count("label 4, outside the 3 classes") == 2
    assert ended.stderr.count("error: ") == 1
    assert "things are broken" in ended.stderr


def test_the_last_line_sends_nobody_to_fetch_files_that_are_whole(tmp_path):
    for number, dtype in enumerate(("i2", "i4")):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["x"], file["number"] = np.zeros((4, 3), dtype), 1.5
    for name, advice in (("x", "do what the lines above say"), ("number", "do what the lines above say")):
        with pytest.raises(UserError) as caught:
            verify("--data", tmp_path, "--inputs", name)
        assert str(caught.value).endswith(advice)
    # As one sample in each file it is read.
    verify("--data", tmp_path, "--inputs", "number", "--samples", "files")
    with h5py.File(tmp_path / "0.h5", "r+") as file:
        file["number"][...] = np.nan
    with pytest.raises(UserError, match="1 thing is broken; fetch or write these files again"):
        verify("--data", tmp_path, "--inputs", "number", "--samples", "files")
