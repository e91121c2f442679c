"""The command line answers at once and names what was meant."""

import subprocess
import sys

import numpy as np
import pytest
from launch import unread

from hpc_train.metrics.confusion import confusion_matrix, softmax, table


def hpc_train(*arguments):
    return subprocess.run([sys.executable, "-m", "hpc_train.cli", *arguments], capture_output=True, text=True)


def test_help_lists_the_commands_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['hpc-train', '--help']; from hpc_train.cli import main; main();"
        "heavy = {'tensorflow', 'keras', 'horovod', 'h5py', 'numpy', 'tyro'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for command in ("build-horovod", "prepare", "predict"):
        assert command in ended.stdout


@pytest.mark.parametrize(("typed", "meant"), [("predct", "predict"), ("build-horovd", "build-horovod")])
def test_a_mistyped_command_names_the_nearest(typed, meant):
    ended = hpc_train(typed)
    assert ended.returncode == 2
    assert ended.stderr == f"error: no command '{typed}'; did you mean `hpc-train {meant}`?\n"


@pytest.mark.parametrize("command", ["build-horovod", "prepare", "predict"])
def test_every_command_has_help_without_tensorflow(command):
    ended = hpc_train(command, "--help")
    assert ended.returncode == 0, ended.stderr
    assert f"hpc-train {command}" in ended.stdout


def test_a_run_that_is_not_there_is_one_line(tmp_path):
    ended = hpc_train("predict", str(tmp_path), "--data", "x")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "not a run folder" in ended.stderr


@pytest.mark.parametrize("words", ["doctor", "--help", "--version", "bench --help", "inspect --help"])
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(words):
    ended = unread("-m", "hpc_train.cli", *words.split())
    assert (ended.returncode, ended.stderr) == (141, "")


def test_confusion_matrix_has_true_classes_in_rows():
    matrix = confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0], 4)
    np.testing.assert_array_equal(matrix, [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]])
    lines = table(matrix, ["zero", "one", "two", "three"]).splitlines()
    assert lines[2].split() == ["zero", "1", "1", "0", "0", "0.500"]
    assert lines[5].split() == ["three", "0", "0", "0", "0", "-"]


def test_softmax_of_large_logits_does_not_overflow():
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0, 0.0]])), [[0.5, 0.5, 0.0]])
