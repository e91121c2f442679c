"""A whole image: the CPU image, built here, or the image in HPC_TRAIN_TEST_IMAGE: `make test-container`."""

import json
import os
import pwd
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import h5py
import images
import pytest
from launch import BIN, REPOSITORY

from hpc_train.parallel.cuda import refused

needed = images.missing(*(() if os.environ.get("HPC_TRAIN_TEST_IMAGE") else ("debootstrap", "mksquashfs")))
pytestmark = [pytest.mark.container, pytest.mark.skipif(bool(needed), reason=needed), pytest.mark.timeout(3600)]

TRAIN = ("python", "-m", "hpc_train.mnist", "--model", "fc", "--epochs", "2", "--batch-size", "32", "--seed", "5",
         "--threads", "1", "--deterministic")  # fmt: skip
SUMS = """
import sys, numpy as np
from mpi4py import MPI
world = MPI.COMM_WORLD
ones, total = np.full(4_000_000, world.rank + 1.0), np.empty(4_000_000)
world.Allreduce(ones, total)
assert (total == sum(range(1, world.size + 1))).all()
sys.stdout.write(f"summed {world.size}\\n")
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """The image."""
    if named := os.environ.get("HPC_TRAIN_TEST_IMAGE"):
        return Path(named).resolve(strict=True)
    path = tmp_path_factory.mktemp("image") / "hpc-train-cpu.sif"
    built = images.run(images.CONTAINERS / "build.sh", images.CONTAINERS / "hpc-train-cpu.def", path, timeout=3600)
    print(built.stdout[-3000:])
    assert built.returncode == 0
    return path


@pytest.fixture(scope="module")
def family(image) -> str:
    """The MPI inside: mpich or openmpi."""
    return images.labels(image)["mpi"]


def mpirun(family: str) -> list[str]:
    """The host's own mpirun of one family."""
    if family == "openmpi":
        path = shutil.which("mpirun.openmpi")
        root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        return [path, *root, "--oversubscribe"] if path else pytest.skip("no Open MPI here (Debian: openmpi-bin)")
    path = BIN / "mpirun"
    if not path.exists() or "HYDRA" not in images.run(path, "--version").stdout:
        pytest.skip(f"no MPICH's mpirun in {BIN}")
    return [str(path)]


@pytest.fixture(scope="module")
def host_mpirun(family) -> list[str]:
    """The host's mpirun, of the family of the image's MPI."""
    return mpirun(family)


@pytest.fixture(scope="module")
def foreign_mpirun(family) -> list[str]:
    """The host's mpirun of the other family."""
    return mpirun({"mpich": "openmpi", "openmpi": "mpich"}[family])


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder to work in, without an hpc_train, which would be used instead of the image's."""
    (tmp_path / "sums.py").write_text(SUMS)
    tmp_path.chmod(0o777)
    return tmp_path


def inside(image: Path, place: Path, digits: Path, *options: str) -> list[str]:
    binds = ["--bind", str(place), "--bind", str(digits), "--pwd", str(place)]
    return ["apptainer", "exec", *binds, *options, str(image)]


def weights(run: Path) -> dict:
    found = {}

    def keep(name: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[...]

    with zipfile.ZipFile(run / "model.keras") as archive, archive.open("model.weights.h5") as file:
        h5py.File(file).visititems(keep)
    return found


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def test_its_own_test_passes_whatever_machine_builds_it(image):
    # One core, a folder for temporary files that no container shows, a job with GPUs, Python packages of a module.
    machine = {"SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": "/site"}
    machine |= {"TMPDIR": "/scratch/mine", "NODE_LOCAL": "/scratch/node"}
    tested = images.run("taskset", "--cpu-list", "0", "apptainer", "test", image, timeout=300, **machine)
    assert tested.returncode == 0, tested.stdout
    assert "nothing is wrong" in tested.stdout
    assert "the sum over 2 ranks is right" in tested.stdout


def test_its_own_test_fails_where_something_is_wrong(image, tmp_path):
    (tmp_path / "hpc-train").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "hpc-train").chmod(0o755)
    bind = f"{tmp_path}/hpc-train:/opt/hpc-train/bin/hpc-train"
    assert images.run("apptainer", "test", "--bind", bind, image).returncode == 1


def test_python_packages_of_the_host_do_not_come_before_its_own(image, tmp_path):
    (tmp_path / "h5py.py").write_text("raise ImportError('of the host')\n")
    command = ("apptainer", "exec", "--bind", tmp_path, image, "python", "-c", "import h5py")
    assert images.run(*command, PYTHONPATH=str(tmp_path)).returncode == 0
    chosen = images.run(*command[:2], "--env", f"PYTHONPATH={tmp_path}", *command[2:])
    assert "of the host" in chosen.stdout


def test_its_labels_hold_the_revision_and_the_versions(image, family):
    labels = images.labels(image)
    wanted = {"org.opencontainers.image.revision", "hpc-train", "keras", "horovod", "mpi4py", "h5py", family}
    assert wanted <= labels.keys()
    asked = "from importlib.metadata import version; print(version('keras'), version('horovod'))"
    inside = images.run("apptainer", "exec", image, "python", "-c", asked).stdout
    assert inside.split()[-2:] == [labels["keras"], labels["horovod"]]


def test_later_installations_use_debians_own_mirrors_with_security_updates(image):
    listed = images.run("apptainer", "exec", image, "sh", "-c", "cat /etc/apt/sources.list /etc/apt/sources.list.d/*")
    mirrors = [line.split()[1:] for line in listed.stdout.splitlines() if line.startswith("deb ")]
    assert mirrors == [
        ["https://deb.debian.org/debian", "bookworm", "main"],
        ["https://deb.debian.org/debian-security", "bookworm-security", "main"],
    ]


def test_mpi_inside_the_hosts_launcher_and_no_container_make_the_same_weights(image, host_mpirun, place, digits):
    def run(name: str, *command: str) -> dict:
        train = (*TRAIN, "--data", str(digits), "--run", str(place / name))
        ended = images.run(*command, *train, timeout=300, CUDA_VISIBLE_DEVICES="")
        assert ended.returncode == 0, ended.stdout[-3000:]
        assert "2 ranks" in ended.stdout
        return weights(place / name)

    container = inside(image, place, digits)
    alone = run("inside", *container, "mpirun", "-np", "2")
    hybrid = run("hybrid", *host_mpirun, "-np", "2", *container)
    bare = run("bare", BIN / "horovodrun", "-np", "2", "env", f"PATH={BIN}:{os.environ['PATH']}")
    assert alone
    assert same(alone, hybrid)
    assert same(alone, bare)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_users_ranks_train_and_their_large_messages_arrive(image, host_mpirun, place, digits):
    user = pwd.getpwnam("nobody")
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    for folder in (*place.parents, *image.parents, digits):
        if folder.owner() == "root" and folder.name.startswith(("pytest-", "image", "digits")):
            folder.chmod(0o755)
    if images.run(*become, "test", "-r", image, "-a", "-x", shutil.which(host_mpirun[0])).returncode:
        pytest.skip(f"{user.pw_name} may not read {image}, or not run {host_mpirun[0]}")
    fuse = Path("/dev/fuse")
    unpacked = [] if fuse.exists() and fuse.stat().st_mode & 0o006 == 0o006 else ["--unsquash"]
    container = inside(image, place, digits, "--no-home", *unpacked)
    start = (*become, *host_mpirun, "-np", "2", *container)
    ended = images.run(*start, "python", place / "sums.py", HOME=str(place))
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("summed 2") == 2
    command = (*start, *TRAIN, "--data", str(digits), "--run", str(place / "run"))
    trained = images.run(*command, timeout=300, HOME=str(place), CUDA_VISIBLE_DEVICES="")
    assert trained.returncode == 0, trained.stdout[-3000:]
    assert weights(place / "run")
    assert (place / "run").owner() == user.pw_name


DOCTOR = ("hpc-train", "doctor", "--launch", "--ranks", "2")


def test_doctor_reports_that_the_environment_was_cleaned(image, host_mpirun, place, digits):
    cleaned = images.run(*host_mpirun, "-np", "2", *inside(image, place, digits, "--cleanenv"), *DOCTOR)
    assert cleaned.returncode != 0
    assert "the container keeps its variables from them" in cleaned.stdout
    assert "without --cleanenv" in cleaned.stdout


def test_doctor_reports_that_the_hosts_mpi_is_another(image, family, foreign_mpirun, place, digits):
    mixed = images.run(*foreign_mpirun, "-n", "2", *inside(image, place, digits), *DOCTOR)
    inner, outer = {"mpich": ("MPICH", "Open MPI's mpirun"), "openmpi": ("Open MPI", "MPICH's mpirun")}[family]
    assert mixed.returncode != 0
    assert "cleanenv" not in mixed.stdout
    assert inner in mixed.stdout
    assert outer in mixed.stdout


def test_the_hosts_mpi_mounted_in_takes_the_place_of_the_images(image, family, host_mpirun, place, digits):
    if family != "mpich":
        pytest.skip("MPICH is one file; Open MPI would bring its plugins and what they are linked with")
    library = "/host-mpi/libmpi.so.12"
    variables = f"LD_LIBRARY_PATH=/host-mpi,MPI4PY_LIBMPI={library}"
    container = inside(image, place, digits, "--bind", f"{BIN.parent / 'lib'}:/host-mpi", "--env", variables)
    summed = images.run(*host_mpirun, "-np", "2", *container, "hpc-train", "doctor")
    assert summed.returncode == 0, summed.stdout
    assert f"({library}); the same: mpi4py" in summed.stdout
    assert "over 2 ranks" in summed.stdout


def test_in_a_job_the_mpirun_inside_stays_on_its_node(image, cluster, place, digits):
    command = [*inside(image, place, digits), "mpirun", "-np", "2", "hpc-train", "doctor"]
    path = images.environment()["PATH"]
    job = cluster.submit("-N2", "--ntasks-per-node=2", "--wrap", shlex.join(command), cwd=place, PATH=path)
    assert cluster.wait(job, 120).status == 0, cluster.output(job)
    assert "over 2 ranks" in cluster.output(job)


@pytest.fixture
def slurm(cluster, family):
    """The test cluster, where it can start ranks of the image's MPI."""
    if family == "openmpi" and refused("libpmix.so"):
        pytest.skip("Slurm's PMIx wants libpmix.so (Debian: libpmix-dev)")
    return cluster


def submit(slurm, image: Path, place: Path, digits: Path, **settings: str) -> int:
    """A job that trains in the container, on 2 nodes with 2 ranks each."""
    shutil.copytree(REPOSITORY / "slurm", place / "slurm", ignore=shutil.ignore_patterns("site.env"))
    env = images.environment(CONTAINER=str(image), PATH=os.environ["PATH"])
    chosen = {name: env[name] for name in ("CONTAINER", "PATH", "APPTAINER_DROP_CAPS") if name in env}
    shape = ("-N2", "--ntasks-per-node=2", "--gpus-per-node=0", str(REPOSITORY / "slurm" / "mnist_8gpu.sh"))
    training = ("--data", str(digits), *TRAIN[3:], "--run", str(place / "job"))
    return slurm.submit(*shape, *training, cwd=place, **chosen, **settings)


def test_a_job_of_2_nodes_with_2_ranks_trains_in_it(image, slurm, place, digits):
    job = submit(slurm, image, place, digits)
    assert slurm.wait(job, 300).status == 0, slurm.output(job)
    assert "4 ranks on 2 nodes" in slurm.output(job)
    assert str(image) in slurm.output(job)
    assert json.loads((place / "job" / "run.json").read_text())
    assert sys.executable not in slurm.output(job)


def test_a_job_whose_containers_hide_the_launcher_ends_with_the_reason(image, slurm, place, digits):
    job = submit(slurm, image, place, digits, CONTAINER_OPTIONS="--cleanenv")
    assert slurm.wait(job, 300).status != 0, slurm.output(job)
    assert "the container keeps its variables from them" in slurm.output(job)
    assert "no launcher makes 4 ranks on 2 nodes find each other" in slurm.output(job)


def test_tensorflow_for_gpus_opens_every_library_and_takes_a_gpu(image, place, digits, tmp_path):
    container = inside(image, place, digits)
    asked = images.run(*container, "python", "-c", "import tensorflow as tf; print(tf.test.is_built_with_cuda())")
    if asked.stdout.split()[-1] != "True":
        pytest.skip("an image for CPUs")
    images.mock_driver(tmp_path)
    listed = images.run(*container, "env", f"LD_LIBRARY_PATH={tmp_path}", "python", "-c", images.LIST_GPUS)
    assert "seen 1" in listed.stdout, listed.stdout[-3000:]
