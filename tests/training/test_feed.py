"""Trainers on data of any layout, on real ranks: from the folder to the summary, and errors on the way."""

import json

import h5py
import numpy as np
import pytest
from launch import RANKS, launch

from hpc_train.data.statistics import command as stats

SEGMENTATION = str(RANKS / "segmentation.py")
SHAPE = (48, 64)


def climate(folder, train=24, held_out=8, rows=1, **storage):
    """Files in the CAM5 layout whose labels can be learnt: class 1 where the first channel is high, 2 where low."""
    for split, samples in (("train", train), ("validation", held_out)):
        (folder / split).mkdir(parents=True)
        for number in range(samples):
            fields = np.random.default_rng([number, samples]).normal(size=(*SHAPE, 4)).astype("f4")
            labels = np.where(fields[..., 0] > 1, 1, np.where(fields[..., 0] < -1, 2, 0)).astype("f4")
            with h5py.File(folder / split / f"data-{number:04d}.h5", "w") as file:
                file.create_dataset("climate/data", data=fields, **storage)
                file["climate/labels_0"] = labels
    return folder


def train(data, run, *arguments, ranks=2, timeout=120):
    options = (
        "--data",
        str(data),
        "--run",
        str(run),
        "--classes",
        "3",
        "--batch-size",
        "2",
        "--base-batch",
        "4",
        "--lr",
        "0.2",
    )
    return launch(ranks, SEGMENTATION, *options, "--no-histograms", *arguments, timeout=timeout)


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def errors(ended):
    return [line for line in ended.output.splitlines() if "error: " in line]


def test_label_maps_of_one_sample_files_are_learnt_from_gzip_chunks(tmp_path):
    data = climate(tmp_path / "data", chunks=(16, 64, 4), compression="gzip", shuffle=True)
    stats.run(stats.Stats(data=data, classes=3))
    extra = ("--statistics", str(data / "statistics.h5"), "--stage", str(tmp_path / "local"))
    ended = train(data, tmp_path / "run", "--epochs", "4", "--read-threads", "2", "--read-ahead", "3", *extra)
    assert ended.status == 0, ended.output
    assert "climate/data: chunks (16, 64, 4)" in ended.output
    assert "2 reading threads" in ended.output
    assert "staged 32 files" in ended.output
    assert len(list((tmp_path / "local" / "data").rglob("data-*.h5"))) == 32
    assert "validation accuracy" in ended.output
    assert "input wait" in ended.output
    lines = metrics(tmp_path / "run")
    assert lines[-1]["val_loss"] < lines[0]["val_loss"]
    assert all(0 <= line["input_wait"] <= 1 for line in lines)


def test_blocks_are_recorded_and_a_resumed_run_keeps_them_on_other_ranks(tmp_path):
    fields = np.random.default_rng(0).normal(size=(96, 12, 12, 2)).astype("f4")
    (tmp_path / "data").mkdir()
    for name, rows in (("train", slice(0, 80)), ("test", slice(80, 96))):
        (tmp_path / "data" / name).mkdir()
        with h5py.File(tmp_path / "data" / name / "all.h5", "w") as file:
            file.create_dataset("x", data=fields[rows], chunks=(4, 12, 12, 2), compression="lzf")
            file["y"] = (fields[rows, ..., 0] > 0).astype("u1")
    arguments = ("--inputs", "x", "--targets", "y", "--epochs", "2", "--shuffle-window", "12")
    data, run = tmp_path / "data", tmp_path / "run"
    ended = train(data, run, *arguments, "--checkpoint-every", "7")
    assert ended.status == 0, ended.output
    order = json.loads((run / "run.json").read_text())["facts"]["order"]
    # Four samples share a compressed chunk, so that a full shuffle would decode four to use one.
    expected = {"shuffle": "blocks", "samples": 80, "seed": 0, "block": 4, "window": 12, "lanes": 2, "stride": 2}
    assert order == expected
    ended = train(data, run, *arguments, "--epochs", "3", "--resume", ranks=1)
    assert ended.status == 0, ended.output
    assert json.loads((run / "run.json").read_text())["facts"]["order"] == order
    assert [line["epoch"] for line in metrics(run)] == [1, 2, 3]
    # 80 samples fill 20 steps of 2 x 2, and 40 steps of 1 x 2.
    assert metrics(run)[-1]["step"] == 2 * 20 + 40


def test_a_flipped_byte_in_a_chunk_names_file_data_set_and_chunk_once(tmp_path):
    data = climate(tmp_path / "data", chunks=(16, 64, 4), compression="gzip", fletcher32=True)
    victim = data / "train" / "data-0017.h5"
    with h5py.File(victim) as file:
        chunk = file["climate/data"].id.get_chunk_info(2)
    content = bytearray(victim.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0x10
    victim.write_bytes(content)
    ended = train(data, tmp_path / "run", "--epochs", "3", timeout=60)
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    for part in ("data-0017.h5", "climate/data", "chunk (32, 0, 0)"):
        assert part in errors(ended)[0]
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("case", ["shapes", "labels", "blocks", "no held-out data"])
def test_data_that_cannot_be_trained_on_are_one_line(tmp_path, case):
    data = climate(tmp_path / "data", train=8, held_out=2)
    arguments, expected = (), ""
    if case == "shapes":
        with h5py.File(data / "validation" / "data-0001.h5", "r+") as file:
            del file["climate/data"]
            file["climate/data"] = np.zeros((*SHAPE, 5), "f4")
        expected = "data-0001.h5: input shape is (48, 64, 5), but (48, 64, 4)"
    elif case == "labels":
        with h5py.File(data / "train" / "data-0003.h5", "r+") as file:
            file["climate/labels_0"][3, 4] = 3
        expected = "data-0003.h5: row 0 (sample 3 of 'train') has label 3.0 at [3, 4], outside the 3 classes"
    elif case == "no held-out data":
        data, expected = data / "train" / "*.h5", "is not divided into splits; name the held-out data with --test-data"
    else:
        arguments, expected = ("--shuffle", "blocks", "--shuffle-block", "9", "--shuffle-window", "3"), "window of 3"
    ended = train(data, tmp_path / "run", *arguments, timeout=60)
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert expected in errors(ended)[0]
    assert "Traceback" not in ended.output
