"""How a `fit` begins and ends on all ranks alike, on two real ranks, and what ends with one line."""

import json
import re
import subprocess
import sys

import pytest
from launch import RANKS, checks_of, environment, launch, outcomes_of

SCRIPT = RANKS / "together.py"
STRAYS = str(RANKS / "strays.py")
CHECKS = checks_of(SCRIPT, 3)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return outcomes_of(SCRIPT, 2, tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("check", CHECKS)
def test_on_two_ranks(outcomes, check):
    assert not outcomes[check], outcomes[check]


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("fit", "rank 1 ended epoch 1 of this fit after 3 batches, and rank 0 did not"),
        ("loop", r"the ranks have waited \d+ s for each other: rank 0 in .*strays.py:\d+.*, rank 1 in .*strays.py:\d+"),
        ("tape", r"rank 0 in a step .*strays.py:\d+.*, rank 1 in Horovod's allreduce.*strays.py:\d+"),
        ("end", "rank 0: another rank has ended, while this one waited"),
        ("connection", r"rank 1: ConnectionResetError: \[Errno 104\] Connection reset by peer"),
        ("server", r"rank 1: ConnectionResetError: \[Errno 104\] Connection reset by peer"),
        ("weights", "the ranks train different weights.*: unequal;"),
        ("xla", "jit_compile=True averages gradients or calls Horovod"),
        ("settings", "Keras's epsilon is 0.5 on some ranks and 1e-07 on others"),
    ],
)
def test_a_stray_rank_ends_the_job_with_one_line(case, says, tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"epsilon": 0.5}))
    ended = launch(2, STRAYS, case, str(tmp_path), timeout=60)
    errors = [line for line in ended.output.splitlines() if "error: " in line]
    assert ended.status != 0
    assert len(errors) == 1, ended.output
    assert re.search(says, errors[0]), errors[0]
    assert "went on" not in ended.output
    assert ("Traceback" in ended.output) == (case in ("connection", "server"))


def run(code: str, **variables: str) -> subprocess.CompletedProcess:
    env = environment(**variables)
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


def test_a_backend_that_is_not_installed_is_one_line():
    ended = run("from hpc_train import parallel; parallel.init()", KERAS_BACKEND="torch")
    assert ended.returncode == 1
    assert ended.stderr == "error: Keras runs on torch; Horovod needs KERAS_BACKEND=tensorflow\n"


def test_a_script_that_imports_keras_first_gets_the_same_line():
    code = "from hpc_train import parallel; import keras; parallel.init()"
    for backend in ("torch", "no_such"):
        ended = run(code, KERAS_BACKEND=backend)
        assert ended.returncode == 1
        assert ended.stderr == f"error: Keras runs on {backend}; Horovod needs KERAS_BACKEND=tensorflow\n"


# Python's own finder does not find it, as if it were not installed.
WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *where: None if name == "tensorflow" else find(name, *where)
"""


@pytest.mark.parametrize(
    "script",
    [
        "from hpc_train import parallel; import keras",
        "from hpc_train import parallel; parallel.init()",
        "from hpc_train import command_line, mnist as m; command_line.main(m.Options, m.run, 'mnist', ['--data', 'x'])",
        "sys.argv = ['hpc-train', 'flops', 'mnist']; from hpc_train.cli import main; main()",
    ],
)
def test_without_tensorflow_there_is_one_line_with_the_command_that_installs_it(script):
    ended = run(f"{WITHOUT_TENSORFLOW}\n{script}")
    assert ended.returncode in (1, 2)
    said = ended.stderr.splitlines()
    assert re.fullmatch(r"error: no usable TensorFlow here .*: pip install .*hpc-train build-horovod.*", said[-1])
    assert len(said) == 1


def test_a_script_that_imports_keras_before_init_prints_none_of_tensorflows_lines():
    ended = run("from hpc_train import parallel; import keras; parallel.init(); print('ready')")
    assert (ended.stdout, ended.stderr) == ("ready\n", "")


def test_settings_that_a_file_changed_are_named_or_taken_back(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"floatx": "float16", "image_data_format": "channels_first"}))
    code = "from hpc_train import parallel; parallel.init(%s); import keras; print(keras.layers.Dense(1).dtype)"
    kept, taken = (run(code % argument, KERAS_HOME=str(tmp_path)) for argument in ("", "keras_defaults=True"))
    for ended, floatx in ((kept, "float16"), (taken, "float32")):
        assert ended.stdout == f"{floatx}\n"
        assert f"note: {tmp_path}/keras.json sets floatx float16, image_data_format channels_first" in ended.stderr


def test_a_start_after_tensorflow_has_taken_the_gpus_is_one_line():
    # There need be no GPU here: TensorFlow refuses in this way once it has made one's device.
    code = """
from hpc_train import parallel
from hpc_train.parallel import start
import tensorflow as tf
def refuse(*_):
    raise RuntimeError("Visible devices cannot be modified after being initialized")
tf.config.set_visible_devices = refuse
start.list_gpus = lambda: ["GPU:0"]
parallel.init()
"""
    ended = run(code)
    assert ended.returncode == 1
    assert re.fullmatch(r"error: parallel.init\(\) comes too late.*cannot be modified.*", ended.stderr.splitlines()[-1])
    assert "Traceback" not in ended.stderr
