"""Commands that write data on a disk that is full: one line, the status of an error, nothing half written."""

import subprocess
import sys

import failing
import numpy as np
import pytest
from launch import REPOSITORY, environment

ARRAYS = ["prepare", "arrays", "--inputs", "x", "--targets", "y", "--classes", "3", "--test-fraction", "0.2"]


def run(*arguments):
    env = environment(PYTHONPATH=str(REPOSITORY))
    command = [sys.executable, "-m", "hpc_train", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Numbers that no compression makes smaller: 8 MB."""
    folder = tmp_path_factory.mktemp("arrays")
    draw = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=draw.random((2000, 32, 32), "float32"), y=draw.integers(0, 3, 2000))
    return folder / "data.npz"


@pytest.fixture(scope="module")
def shards(arrays, tmp_path_factory):
    output = tmp_path_factory.mktemp("shards")
    ended = run(*ARRAYS, "--data", arrays, "--output", output)
    assert ended.returncode == 0, ended.stderr
    return output


COMMANDS = {
    "prepare": lambda arrays, shards: [*ARRAYS, "--data", arrays],
    "prepare compressed": lambda arrays, shards: [*ARRAYS, "--data", arrays, "--compression", "zstd"],
    "shard": lambda arrays, shards: ["shard", "--data", shards, "--compression", "gzip"],
    "synthetic climate": lambda arrays, shards: ["prepare", "climate-synthetic", "--size", 192, 288, "--train", 2],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line(arrays, shards, tmp_path, command):
    with failing.small_disk(tmp_path / "disk", "3m") as disk:
        ended = run(*COMMANDS[command](arrays, shards), "--output", disk / "out")
        assert 0 < ended.returncode < 128, ended.stderr
        lines = ended.stderr.strip().splitlines()
        assert len(lines) == 1, ended.stderr
        assert lines[0].startswith("error: ")
        assert "free" in lines[0]
        # `shard` keeps complete shards under a temporary name, and goes on from there.
        left = sorted(path.name for path in disk.rglob("*") if path.is_file() and not path.name.endswith(".whole"))
        assert left == {"shard": [f"test-{shard:05}-of-00004.h5" for shard in range(4)]}.get(command, [])


def test_output_that_cannot_be_written_is_one_line(shards):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "hpc_train", "inspect", "--data", str(shards)]
        env = environment(PYTHONPATH=str(REPOSITORY))
        ended = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode != 0
    assert ended.stderr == "error: cannot write the output: No space left on device; write it to another place\n"
