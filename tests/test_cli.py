"""The command line answers at once; errors name the command that was meant."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from launch import environment, unread

from hpc_train.metrics.confusion import confusion_matrix, softmax, table


def hpc_train(*arguments, module="hpc_train.cli"):
    env = {**os.environ, "COLUMNS": "80"}
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, env=env)


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


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ("mnist", "`hpc-train mnist` is not a command: start this trainer with `python -m hpc_train.mnist ...`"),
        ("climate --data x", "`hpc-train climate` is not a command: start this trainer with `python -m hpc_train.c"),
        ("train", "`hpc-train train` is not a command: the trainers are mnist, resnet, climate and fit; start one w"),
        ("train resnet", "`hpc-train resnet` is not a command: start this trainer with `python -m hpc_train.resnet"),
        ("mnits", "no command 'mnits'; did you mean `python -m hpc_train.mnist`?"),
        ("help predct", "no command 'predct'; did you mean `hpc-train predict`?"),
        ("completion", "name the shell, which can only be bash: `hpc-train completion bash` prints"),
    ],
)
def test_an_unknown_command_is_one_line_that_names_the_right_one(words, start):
    ended = hpc_train(*words.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {start}")
    assert ended.stderr.count("\n") == 1


def test_a_trainer_typed_as_a_command_names_the_whole_line_for_one_gpu_and_for_four():
    ended = hpc_train("mnist", "--data", "my shards")
    assert ended.stderr == (
        "error: `hpc-train mnist` is not a command: start this trainer with `python -m hpc_train.mnist --data "
        "'my shards'`, or on 4 GPUs with `horovodrun -np 4 python -m hpc_train.mnist --data 'my shards'`\n"
    )


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ("", "usage: hpc-train COMMAND [OPTIONS]"),
        ("help", "usage: hpc-train COMMAND [OPTIONS]"),
        ("help prepare storm-tracks", "usage: hpc-train prepare storm-tracks "),
        ("help bench", "usage: hpc-train COMMAND [OPTIONS]"),
        ("help bench throughput mnist", "usage: hpc-train bench throughput mnist "),
        ("bench throughput -h", "usage: hpc-train bench throughput {mnist,resnet,climate,fit} [OPTIONS]"),
        ("help resnet", "usage: python -m hpc_train.resnet --data PATH [OPTIONS]"),
        ("mnist --help", "usage: python -m hpc_train.mnist --data PATH [OPTIONS]"),
        (
            "help train",
            "the trainers are mnist, resnet, climate and fit; start one with `python -m hpc_train.mnist ...`",
        ),
        ("completion --help", "`hpc-train completion bash` prints a script"),
        ("completion bash", "# Makes bash complete hpc-train."),
    ],
)
def test_help_is_asked_for_in_many_ways(words, start):
    ended = hpc_train(*words.split(), module="hpc_train")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(start)


def test_the_list_of_commands_fits_into_80_columns_and_names_each_command_and_trainer():
    listed = hpc_train("--help").stdout
    assert max(map(len, listed.splitlines())) <= 80
    assert "  prepare climate-synthetic " in listed
    assert "  python -m hpc_train.resnet " in listed


def test_the_help_of_prepare_names_the_commands_for_climate_data():
    text = " ".join(hpc_train("prepare", "--help").stdout.split())
    assert "`hpc-train prepare climate-synthetic` makes" in text
    assert "`hpc-train prepare storm-tracks` labels" in text


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
def test_a_command_ends_quietly_when_nothing_reads_its_output(words):
    ended = unread("-m", "hpc_train.cli", *words.split())
    assert (ended.returncode, ended.stderr) == (141, "")


def test_confusion_matrix_has_true_classes_in_rows():
    matrix = confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0], 4)
    np.testing.assert_array_equal(matrix, [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]])
    lines = table(matrix, ["zero", "one", "two", "three"]).splitlines()
    assert lines[2].split() == ["zero", "1", "1", "0", "0", "0.500"]
    assert lines[5].split() == ["three", "0", "0", "0", "0", "-"]


def test_a_matrix_wider_than_a_screen_is_a_line_for_each_class():
    true = np.repeat(np.arange(46), 2)
    lines = table(confusion_matrix(true, np.where(true == 3, [7, 3] * 46, true), 46), [f"kind{i}" for i in range(46)])
    rows = [line.split() for line in lines.splitlines()[2:]]
    assert rows[3] == ["kind3", "2", "0.500", "kind7", "(1)"]
    assert rows[7] == ["kind7", "2", "1.000"]
    assert max(map(len, lines.splitlines())) < 120


def test_softmax_of_large_logits_does_not_overflow():
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0, 0.0]])), [[0.5, 0.5, 0.0]])


@pytest.mark.parametrize("kept", ["", "finished shards are kept"])
def test_ctrl_c_ends_a_command_with_one_line(kept):
    work = "print('ready', flush=True); time.sleep(60)"
    if kept:
        work = f"""
    try:
        {work}
    except KeyboardInterrupt:
        raise KeyboardInterrupt({kept!r}) from None"""
    code = f"""
import signal, time
from dataclasses import make_dataclass
from hpc_train import command_line

signal.signal(signal.SIGINT, signal.default_int_handler)
def run(options): {work}
command_line.main(make_dataclass("Nothing", []), run, "hpc-train nothing")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == f"\ninterrupted: {kept or 'nothing half-written is left; give the same command again'}\n"
