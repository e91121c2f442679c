"""The wheel works without a clone: commands, training on 2 ranks, and the templates that belong to it."""

import importlib.metadata
import os
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from launch import BIN, REPOSITORY, environment

from hpc_train import __version__
from hpc_train.errors import UserError
from hpc_train.requirements import pip_install
from hpc_train.sites.command import Templates, next_step, run

pytest.importorskip("build", reason="no build here: pip install build")

SOURCE = ("hpc_train", "slurm", "containers", "tests")
PACKAGES = Path(sysconfig.get_path("platlib"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, made by way of the sdist from a copy of the project in which a user has a site.env."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "hpc-train"
    source.mkdir()
    for name in SOURCE:
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in REPOSITORY.glob("[!.]*"):
        if path.is_file() and path.suffix in ("", ".cfg", ".toml", ".txt", ".md", ".in"):
            shutil.copy(path, source)
    (source / "slurm" / "site.env").write_text("SECRET=1\n")
    built = without_clone(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = folder.glob("*.whl")
    return path


def install(wheel, folder):
    """A new environment with the wheel alone; its folder of packages."""
    made = without_clone(sys.executable, "-m", "venv", "--without-pip", folder)
    assert made.returncode == 0, made.stderr
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check")
    installed = without_clone(*pip, "install", "--no-deps", "--no-index", wheel)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    [packages] = folder.glob("lib/python*/site-packages")
    return packages


@pytest.fixture(scope="module")
def outside(wheel, tmp_path_factory):
    """A function that runs a program of an environment which has the wheel, and all else from the running one."""
    folder = tmp_path_factory.mktemp("outside")
    packages = install(wheel, folder / "env")
    # A folder named in a .pth comes last on sys.path, and the .pth files in it (an editable install) are not read.
    (packages / "others.pth").write_text(f"{PACKAGES}\n")
    return runner(folder)


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """As `outside`, in an environment without TensorFlow and Horovod."""
    folder = tmp_path_factory.mktemp("bare")
    packages = install(wheel, folder / "env")
    for path in PACKAGES.iterdir():
        absent = path.name.startswith(("tensorflow", "horovod", "hpc_train", "__editable__"))
        if not absent and not (packages / path.name).exists():
            (packages / path.name).symlink_to(path)
    return runner(folder)


def runner(folder):
    """`without_clone` in a folder, with its env first on PATH."""

    def call(*command):
        return without_clone(*command, cwd=folder, first=folder / "env" / "bin")

    call.folder = folder
    return call


def without_clone(*command, cwd=None, first=BIN):
    """A command that has ended; PYTHONPATH, which may name the clone, is not set for it."""
    env = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    # mpi4py looks for an MPI that came as a wheel in its own environment, and this is another one.
    for library in Path(sys.prefix, "lib").glob("libmpi.so.*"):
        env["MPI4PY_LIBMPI"] = str(library)
    env["PATH"] = f"{first}{os.pathsep}{env['PATH']}"
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def files(folder):
    """Contents, and whether it is executable, by path, of what belongs to the project."""
    found = [path for name in ("slurm", "containers") for path in (folder / name).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
        for path in found
        if path.name != "site.env" and path.suffix not in (".out", ".sif")
    }


def test_commands_come_from_the_wheel(outside):
    where = outside("python", "-c", "import hpc_train; print(hpc_train.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(outside.folder), where.stdout + where.stderr
    helped = outside("hpc-train", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "templates" in helped.stdout
    assert outside("hpc-train", "--version").stdout == f"hpc-train {__version__}\n"


def test_it_prepares_and_trains_on_two_ranks(outside):
    pytest.importorskip("sklearn")
    if not (BIN / "horovodrun").exists():
        pytest.skip("Horovod is not built here: run `hpc-train build-horovod`")
    examined = outside("hpc-train", "doctor")
    assert (examined.returncode, "nothing is wrong" in examined.stdout) == (0, True), examined.stdout
    prepared = outside("hpc-train", "prepare", "digits", "--output", "digits")
    assert prepared.returncode == 0, prepared.stderr
    training = ("python", "-m", "hpc_train.mnist", "--data", "digits", "--epochs", "1", "--run", "run")
    trained = outside("horovodrun", "-np", "2", *training)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "2 ranks" in trained.stdout
    assert (outside.folder / "run" / "run.json").is_file()


def test_the_templates_are_those_of_the_repository(outside):
    wrote = outside("hpc-train", "templates", "jobs")
    assert wrote.returncode == 0, wrote.stderr
    expected = files(REPOSITORY)
    assert len(expected) == int(wrote.stdout.split(" files of ")[0].split()[-1])
    assert files(outside.folder / "jobs") == expected
    assert not list(outside.folder.rglob("site.env")), "a user's settings are in the wheel"
    assert f"VENV={outside.folder / 'env'}" in wrote.stdout
    explained = outside(outside.folder / "jobs" / "slurm" / "mnist_8gpu.sh", "--help")
    assert explained.returncode == 0, explained.stderr
    assert "slurm/mnist_8gpu.sh --data" in explained.stdout


def test_recipes_without_the_source_say_so(outside):
    assert outside("hpc-train", "templates", "recipes").returncode == 0
    checked = outside(outside.folder / "recipes" / "containers" / "build.sh", "--check")
    assert checked.returncode == 1
    assert f"{outside.folder / 'recipes'} has no setup.cfg" in checked.stderr


def test_without_tensorflow_one_line_says_what_to_install(bare):
    commands = "pip install 'tensorflow-cpu==2.21.*' && hpc-train build-horovod"
    examined = bare("hpc-train", "doctor")
    [line] = [line for line in examined.stdout.splitlines() if line.startswith("TensorFlow ")]
    assert (examined.returncode, commands in line) == (1, True), examined.stdout
    for command in (("python", "-m", "hpc_train.mnist", "--data", "x"), ("hpc-train", "flops", "mnist")):
        ended = bare(*command)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
        assert ended.stderr.startswith("error: ")
        assert commands in ended.stderr
    built = bare("hpc-train", "build-horovod")
    assert (built.returncode, built.stderr.count("\n")) == (2, 1), built.stderr
    assert "pip install 'tensorflow-cpu==2.21.*'" in built.stderr


def test_a_clone_that_is_not_installed_names_itself(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert shlex.split(pip_install("cpu")) == ["pip", "install", f"{REPOSITORY}[cpu]"]


def test_templates_that_a_user_changed_are_kept(tmp_path, capsys):
    run(Templates(tmp_path))
    changed, settings, script = (tmp_path / "slurm" / name for name in ("common.sh", "site.env", "resnet.sh"))
    changed.write_text("mine\n")
    settings.write_text("mine\n")
    script.chmod(0o644)
    (tmp_path / "containers" / "build.sh").unlink()
    with pytest.raises(UserError, match=f"differ from hpc-train {__version__}: {changed}; --force"):
        run(Templates(tmp_path))
    assert changed.read_text() == "mine\n"
    assert not (tmp_path / "containers" / "build.sh").exists(), "nothing is written where something is refused"
    capsys.readouterr()
    run(Templates(tmp_path, force=True))
    assert ": wrote 2 files" in capsys.readouterr().out
    assert files(tmp_path) == files(REPOSITORY)
    assert settings.read_text() == "mine\n"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "slurm").touch()
    with pytest.raises(UserError, match=f"cannot write to {tmp_path}: "):
        run(Templates(tmp_path))


def test_the_next_step_is_a_command_for_this_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("APPTAINER_CONTAINER", raising=False)
    monkeypatch.setattr(sys, "prefix", "/my envs/one")
    folder = tmp_path / "my jobs"
    run(Templates(folder))
    command = next_step(folder).removesuffix(" && sbatch --gpus-per-node=4 slurm/doctor.sh")
    asked = subprocess.run(["bash", "-c", f"{command} && source slurm/site.env && echo $VENV"], capture_output=True)
    assert asked.stdout == b"/my envs/one\n", asked.stderr
    assert "site.env" not in next_step(folder)
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/x.sif")
    assert "CONTAINER=/images/x.sif" in next_step(tmp_path)
