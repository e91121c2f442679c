"""TensorFlow for GPUs finds CUDA's libraries, in the wheels that it asks for."""

import shutil
import subprocess
import sys

import images
import pytest

from hpc_train.doctor import software

COMPILER = shutil.which("cc") or shutil.which("g++")
pytestmark = pytest.mark.skipif(not COMPILER, reason="no C compiler here")

FIND = """
import ctypes
from hpc_train.parallel import cuda

def found():
    try:
        return bool(ctypes.CDLL("libcusolver.so.11"))
    except OSError:
        return False

before = found()
cuda._open_cusolver()
print(before, found())
"""
LIST = "from hpc_train.parallel.cuda import list_gpus; print('seen', len(list_gpus()))"


def run(code: str, **variables: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=images.environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]
    return ended.stdout


def test_a_wheels_cusolver_is_found_by_its_name_once_it_is_open(tmp_path):
    folder = tmp_path / "nvidia" / "cusolver" / "lib"
    folder.mkdir(parents=True)
    source = tmp_path / "empty.c"
    source.touch()
    name = "libcusolver.so.11"
    subprocess.run([COMPILER, "-shared", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True)
    assert run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + FIND).split() == ["False", "True"]
    # Without the wheel there is nothing to open, and nothing is said.
    assert run(FIND).split()[0] == "False"


def test_tensorflow_opens_every_library_and_takes_a_gpu(tmp_path):
    import tensorflow as tf

    if not tf.test.is_built_with_cuda():
        pytest.skip("TensorFlow is a CPU build here (`make venv GPU=1` installs the other)")
    images.mock_driver(tmp_path)
    assert "seen 1" in run(LIST, LD_LIBRARY_PATH=str(tmp_path))


def test_a_library_that_does_not_load_is_named_with_the_remedy():
    reason = "libcudnn.so.9: cannot open shared object file: No such file or directory"
    found = software.judge_cuda([reason, "libnccl.so.2: no"])
    assert found.verdict == "wrong"
    assert reason in found.value
    assert found.value.endswith("nor do 1 more")
    assert "pip install 'tensorflow[and-cuda]" in found.remedy
    assert software.judge_cuda([]).verdict == "ok"
