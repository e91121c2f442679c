"""A site's TensorFlow under an environment of one's own: nothing of the site changes; what cannot work is told."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from launch import REPOSITORY

from hpc_train import requirements
from hpc_train.errors import UserError
from hpc_train.horovod_build import cache, command, shell, toolchain


def package(folder: Path, name: str, version: str, module: str = "", text: str = "") -> Path:
    """A package as pip would have left it in `folder`; returns the folder of its module."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    home = folder / (module or name.replace("-", "_"))
    home.mkdir(exist_ok=True)
    (home / "__init__.py").write_text(text)
    return home


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site's folder of packages, before all others on the path."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("tensorflow", "keras"):
        # Another test may have imported them.
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    return folder


# TensorFlow


def test_nvidias_tensorflow_is_found_with_its_local_version(site):
    package(site, "tensorflow", "2.17.0+nv25.2")
    found = toolchain.find_tensorflow()
    assert (found.name, found.version) == ("tensorflow", "2.17.0+nv25.2")
    assert found.include == site / "tensorflow" / "include"


def test_the_tensorflow_that_would_be_imported_counts_not_one_that_lies_behind_it(site, tmp_path, monkeypatch):
    package(site, "tensorflow-cpu", "2.16.2", "tensorflow")
    package(tmp_path / "own", "tensorflow", "2.20.0")
    monkeypatch.syspath_prepend(tmp_path / "own")
    found = toolchain.find_tensorflow()
    assert (found.name, found.version) == ("tensorflow", "2.20.0")


def test_a_tensorflow_that_pip_does_not_know_says_its_version_itself(site, monkeypatch):
    (site / "tensorflow").mkdir()
    (site / "tensorflow" / "__init__.py").write_text("print('a line of the log')\n__version__ = '2.18.1'\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    assert toolchain.find_tensorflow().version == "2.18.1"


def test_a_tensorflow_that_cannot_be_imported_is_one_line(site, monkeypatch):
    (site / "tensorflow").mkdir()
    (site / "tensorflow" / "__init__.py").write_text("raise ImportError('libcudart.so.12: no such file')\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    with pytest.raises(UserError, match=r"^TensorFlow cannot be imported: ImportError: libcudart[^\n]*$"):
        toolchain.find_tensorflow()


@pytest.mark.parametrize("version", ["2.15.0", "1.15.5+nv23.3", "2.9.0rc1"])
def test_a_tensorflow_older_than_keras_3_is_one_line(site, version):
    package(site, "tensorflow", version)
    with pytest.raises(UserError, match=rf"^TensorFlow {re.escape(version)} in [^\n]* is too old: [^\n]*2\.16[^\n]*$"):
        toolchain.find_tensorflow()


def test_two_builds_of_one_version_have_two_keys(tmp_path):
    keys = []
    for build, size in (("pip", 100), ("conda", 200)):
        (tmp_path / build).mkdir()
        (tmp_path / build / "libtensorflow_framework.so.2").write_bytes(b"x" * size)
        tensorflow = toolchain.TensorFlow("tensorflow", "2.17.0", tmp_path / build / "include", None)
        mpi = toolchain.Mpi(Path("/opt/bin/mpicxx"), None, "mpich 4.3.2", None, ())
        keys.append(cache.key_of(command.key_parts(tensorflow, mpi, "g++ 12", None)))
    assert keys[0] != keys[1]


# Keras


@pytest.mark.parametrize(("version", "file"), [("2.15.0", "__init__.py"), ("3.3.3", "src/version.py")])
def test_an_old_keras_is_one_line_before_anything_is_built(site, monkeypatch, version, file):
    keras = package(site, "keras", version)
    (keras / "src").mkdir()
    (keras / file).write_text(f'import os\n\n__version__ = "{version}"\n')
    package(site, "tensorflow", "2.17.0+nv25.2")
    monkeypatch.setattr(toolchain, "find_mpi", lambda: pytest.fail("the build began"))
    with pytest.raises(UserError, match=rf"^Keras {version} in [^\n]*/site is too old: [^\n]*3\.12 or newer[^\n]*$"):
        command.run(command.BuildHorovod())


@pytest.mark.parametrize("version", ["3.12.0", "3.12.0rc1", "3.15.1", "4.0.0"])
def test_a_keras_that_is_new_enough_is_taken(site, version):
    keras = package(site, "keras", version)
    (keras / "src").mkdir()
    (keras / "src" / "version.py").write_text(f'__version__ = "{version}"\n')
    requirements.check_keras()


def test_pip_is_asked_for_the_same_oldest_keras():
    asked = re.findall(r"^ *keras>=(\S+)$", (REPOSITORY / "setup.cfg").read_text(), re.MULTILINE)
    assert asked == [".".join(map(str, requirements.KERAS))]


# What is installed


def test_an_environment_that_may_not_be_written_is_one_line(monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/proc/self/site-packages")
    with pytest.raises(UserError, match=r"^Horovod cannot be installed in [^\n]*--system-site-packages[^\n]*$"):
        toolchain.check_place()


def test_a_sites_horovod_that_would_come_first_is_one_line(site):
    package(site, "horovod", "0.28.1+nv25.2")
    with pytest.raises(UserError, match=r"^the Horovod in [^\n]*/site comes before[^\n]*PYTHONPATH[^\n]*$"):
        toolchain.check_place()


def test_the_versions_are_those_of_the_packages_that_are_imported(site):
    package(site, "NumPy", "1.26.4", "numpy")
    package(site, "nv.Broken_one", "unknown")
    found = shell.installed()
    assert found["numpy"] == "1.26.4"
    assert "nv-broken-one" not in found


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment over a site's packages, and an index with newer ones: `tool` needs the newest `base`."""
    folder = tmp_path_factory.mktemp("over-a-site")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    package(folder / "site", "base", "1.0")
    lines = f"{folder / 'site'}\n{REPOSITORY}\n" + "".join(f"{path}\n" for path in sys.path if "-packages" in path)
    next((folder / "venv").glob("lib/python*/site-packages")).joinpath("site.pth").write_text(lines)
    for name, needs in (("base", ""), ("tool", "base>=2"), ("plain", "base")):
        source = folder / f"{name}-source"
        source.mkdir()
        (source / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\nversion = "2.0"\ndependencies = [{needs and repr(needs)}]\n'
            '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            "[tool.setuptools]\npy-modules = []\n"
        )
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
        subprocess.run([*command, "-w", folder / "index", source], check=True)
    return folder


def installing(environment: Path, name: str) -> subprocess.CompletedProcess:
    code = f"from hpc_train.horovod_build import shell; shell.install({name!r}, what='install {name}')"
    env = {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(environment / "index")}
    return subprocess.run([environment / "venv/bin/python", "-c", code], env=env, capture_output=True, text=True)


def test_a_package_that_needs_a_newer_one_than_the_sites_is_not_installed(environment):
    """Plain pip would put the newer one before the site's, under its TensorFlow."""
    ended = installing(environment, "tool")
    error = ended.stderr.splitlines()[-1]
    assert "UserError: pip could not install tool and leave the other packages as they are: " in error
    assert "tool 2.0 depends on base>=2" in error
    assert not list((environment / "venv").rglob("base-*"))


def test_a_package_that_works_with_the_sites_is_installed_beside_them(environment):
    ended = installing(environment, "plain")
    assert ended.returncode == 0, ended.stderr
    assert list((environment / "venv").rglob("plain-2.0.dist-info"))
    assert not list((environment / "venv").rglob("base-*"))
    assert sorted(path.name for path in (environment / "site").iterdir()) == ["base", "base-1.0.dist-info"]
