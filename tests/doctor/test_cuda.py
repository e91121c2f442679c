"""TensorFlow for GPUs finds CUDA's libraries, in the wheels that it asks for."""

import subprocess
import sys

import images
import pytest

from hpc_train.doctor import software

pytestmark = pytest.mark.skipif(not images.COMPILER, reason="no C compiler here")

# Opens a library with a name that no machine has.
OPEN = """
import ctypes, sys
from hpc_train.parallel import cuda

sys.path.insert(0, sys.argv[1])
cuda.LIBRARIES["libnobodys.so.7"] = "nobodys"

def found():
    try:
        return bool(ctypes.CDLL("libnobodys.so.7"))
    except OSError:
        return False

before = found()
cuda.open_library("libnobodys.so.7")
print(before, found())
"""


def run(code: str, *arguments: str, **variables: str) -> str:
    ended = images.run(sys.executable, "-c", code, *arguments, **variables)
    assert ended.returncode == 0, ended.stdout[-3000:]
    return ended.stdout


def test_a_wheels_library_is_found_by_its_name_once_it_is_open(tmp_path):
    name, folder = "libnobodys.so.7", tmp_path / "nvidia" / "nobodys" / "lib"
    # Without the wheel there is nothing to open, and no error.
    assert run(OPEN, str(tmp_path)).split() == ["False", "False"]
    folder.mkdir(parents=True)
    (tmp_path / "nvidia" / "__init__.py").touch()
    source = tmp_path / "empty.c"
    source.touch()
    subprocess.run([images.COMPILER, "-shared", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True)
    assert run(OPEN, str(tmp_path)).split() == ["False", "True"]


def test_tensorflow_opens_every_library_and_takes_a_gpu(tmp_path):
    import tensorflow as tf

    if not tf.test.is_built_with_cuda():
        pytest.skip("TensorFlow is a CPU build here (`make venv GPU=1` installs the other)")
    images.mock_driver(tmp_path)
    assert "seen 1" in run(images.LIST_GPUS, LD_LIBRARY_PATH=str(tmp_path))


def test_the_driver_is_asked_for_its_gpus_and_its_newest_cuda(tmp_path):
    images.mock_driver(tmp_path)
    ask = "from hpc_train.doctor import gpus; print(gpus.driver())"
    # What tests/driver.c answers.
    assert run(ask, LD_LIBRARY_PATH=str(tmp_path)) == "(['0000:00:00.0'], '', 12040)\n"


def test_a_library_that_does_not_load_is_named_with_a_remedy():
    reason = "libcudnn.so.9: cannot open shared object file: No such file or directory"
    found = software.judge_cuda([reason, "libnccl.so.2: no"], "")
    assert found.verdict == "wrong"
    assert reason in found.value
    assert found.value.endswith("; 1 more do not load either")
    assert "pip install 'tensorflow[and-cuda]" in found.remedy
    assert "containers/hpc-train-cuda.def" in software.judge_cuda([reason], "image.sif").remedy
    assert software.judge_cuda([], "").verdict == "ok"
