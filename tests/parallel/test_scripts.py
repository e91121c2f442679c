"""Horovod scripts as people wrote them run unchanged, or after `hpc-train port`, with one rank's loss curve."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from launch import RANKS, REPOSITORY, environment, launch
from realdata import real_data

SCRIPTS = REPOSITORY / "tests" / "scripts"
TWICE = "resumed"
PORTED = [path.stem for path in sorted(SCRIPTS.glob("*.py")) if path.read_text().startswith("# port: ")]
NAMES = [path.stem for path in sorted(SCRIPTS.glob("*.py")) if path.stem != "course"]

# Loads a model and nothing of Horovod or this package; prints its optimizer's class and its loss.
PLAIN = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("horovod", "hpc_train"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import keras, numpy
data = numpy.load(sys.argv[1])
for file in sys.argv[2:]:
    model = keras.models.load_model(file)
    loss = model.evaluate(data["x_val"], data["y_val"], verbose=0)
    print(type(model.optimizer).__module__, loss[0] if isinstance(loss, list) else loss)
"""


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """A folder for each script that has run, and what failed in each."""
    import script_curves

    root = tmp_path_factory.mktemp("scripts")
    data, arguments = script_curves.made_up_data(), []
    for name in NAMES:
        folder = root / name
        folder.mkdir()
        np.savez(folder / "data.npz", **data)
        shutil.copy(SCRIPTS / f"{name}.py", folder)
        arguments.append(f"{folder / name}.py{'*2' if name == TWICE else ''}")
    for name in PORTED:
        port(root / name / f"{name}.py")
    ended = launch(script_curves.RANKS, str(RANKS / "scripts.py"), str(root / "outcomes.json"), *arguments, timeout=400)
    assert ended.status == 0, ended.output[-3000:]
    return root, json.loads((root / "outcomes.json").read_text()), ended.output


def port(script: Path) -> None:
    command = [sys.executable, "-m", "hpc_train.cli", "port", str(script), "--write"]
    ended = subprocess.run(command, env=environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_the_loss_curve_of_one_rank(curves, name):
    from script_curves import CURVES, made_up_data

    root, outcomes, _ = curves
    assert not outcomes[name], outcomes[name]
    got, want = json.loads((root / name / "history.json").read_text()), CURVES[name](made_up_data())
    assert got.keys() == want.keys()
    for curve in want:
        # Float16 on the way costs a little.
        rtol = 5e-3 if name == "aggregated" else 5e-4
        np.testing.assert_allclose(got[curve], want[curve], rtol=rtol, atol=1e-5, err_msg=curve)


def test_what_changes_nothing_is_dropped_with_one_line(curves):
    lines = [line for line in curves[2].splitlines() if "experimental_run_tf_function" in line]
    assert len(lines) == 1
    assert "note: " in lines[0]


def test_saved_files_load_in_plain_keras_without_horovod(curves):
    root = curves[0]
    files = [
        *(root / "mnist_2020" / "checkpoint-4.h5", root / "logs_and_best" / "best.h5"),
        *(root / "logs_and_best" / "last.h5", root / "resumed" / "checkpoint-6.h5"),
    ]
    command = [sys.executable, "-I", "-c", PLAIN, str(root / "plateau" / "data.npz"), *map(str, files)]
    ended = subprocess.run(command, env=environment(), cwd=root, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.split()[0].split(".")[0] for line in lines] == ["keras"] * 4
    first = json.loads((root / "mnist_2020" / "history.json").read_text())
    np.testing.assert_allclose(float(lines[0].split()[1]), first["val_loss"][-1], rtol=1e-4)


def test_the_listing_of_the_course_trains_on_two_ranks(tmp_path):
    import gzip

    folder = real_data("mnist")
    arrays = {}
    for name, file, header in (
        ("x_train", "train-images-idx3-ubyte.gz", 16),
        ("y_train", "train-labels-idx1-ubyte.gz", 8),
        ("x_test", "t10k-images-idx3-ubyte.gz", 16),
        ("y_test", "t10k-labels-idx1-ubyte.gz", 8),
    ):
        values = np.frombuffer(gzip.decompress((folder / file).read_bytes()), "uint8", offset=header)
        arrays[name] = values.reshape(-1, 28, 28) if name[0] == "x" else values
    # A part of the images, for time's sake.
    arrays = {name: array[:3000] if "train" in name else array[:1000] for name, array in arrays.items()}
    np.savez(tmp_path / "mnist.npz", **arrays)
    shutil.copy(SCRIPTS / "course.py", tmp_path)
    ended = launch(2, "course.py", cwd=tmp_path, timeout=200)
    assert ended.status == 0, ended.output[-3000:]
    result = json.loads((tmp_path / "history.json").read_text())
    assert result["same"]
    assert result["accuracy"] > 0.75
    assert (tmp_path / "checkpoint-2.h5").exists()


def test_an_import_that_is_gone_is_one_line_before_init_too(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import horovod.keras as hvd\nfrom keras.preprocessing.image import ImageDataGenerator\nhvd.init()\n"
    )
    ended = launch(2, str(script), timeout=60)
    assert ended.status != 0
    errors = [line for line in ended.output.splitlines() if "error: " in line]
    assert len(errors) == 1, ended.output
    assert "train.py:2: Keras 3 has no ImageDataGenerator: import it from tensorflow.keras" in errors[0]
    assert "Traceback" not in ended.output


def test_a_word_of_keras_2_ends_all_ranks_with_one_line(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("import tensorflow as tf\nimport horovod.keras as hvd\nhvd.init()\nconfig = tf.ConfigProto()\n")
    for controller in ("--gloo", "--mpi"):
        ended = launch(2, str(script), controller=controller, timeout=60)
        assert ended.status != 0
        errors = [line for line in ended.output.splitlines() if "error: " in line]
        assert len(errors) == 1, ended.output
        assert "train.py:4: TensorFlow has no ConfigProto: TensorFlow 2 has no sessions" in errors[0]
        assert "Traceback" not in ended.output
