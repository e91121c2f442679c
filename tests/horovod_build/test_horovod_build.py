"""The builder of Horovod, without a compiler: its key, its cache, its patches, and what it prints about a failure."""

import importlib.util
import json
import os
import threading
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_build import CUDA, NCCL, SITE_MPI, TENSORFLOW, program, replaced

from hpc_train.errors import UserError
from hpc_train.horovod_build import cache, command, diagnose, patches, source, toolchain

# The key


def key(tensorflow=TENSORFLOW, mpi=SITE_MPI, compiler="g++ 12.2.0", found_gpu=None) -> str:
    return cache.key_of(command.key_parts(tensorflow, mpi, compiler, found_gpu))


def test_the_key_is_the_same_for_the_same_parts():
    assert key() == key()
    parts = command.key_parts(TENSORFLOW, SITE_MPI, "g++ 12.2.0", None)
    assert cache.key_of(parts) == cache.key_of(dict(reversed(parts.items())))


def test_each_thing_that_changes_the_binary_changes_the_key(monkeypatch):
    other_nccl = replaced(NCCL, version="2.28.1")
    keys = [
        key(),
        key(tensorflow=replaced(TENSORFLOW, version="2.21.1")),
        key(tensorflow=replaced(TENSORFLOW, name="tensorflow")),
        key(mpi=replaced(SITE_MPI, version="mpirun (Open MPI) 5.0.1")),
        key(mpi=replaced(SITE_MPI, mpicxx=Path("/opt/other/bin/mpicxx"))),
        key(mpi=replaced(SITE_MPI, rpath=("/opt/other/lib",))),
        key(compiler="g++ 13.1.0"),
        key(found_gpu=(CUDA, NCCL, "80")),
        key(found_gpu=(CUDA, NCCL, "80,90")),
        key(found_gpu=(CUDA, other_nccl, "80")),
        key(found_gpu=(replaced(CUDA, version="13.0"), NCCL, "80")),
    ]
    for name, value in {
        "CXXFLAGS": lambda: monkeypatch.setenv("CXXFLAGS", "-O1"),
        "python": lambda: monkeypatch.setattr("sysconfig.get_config_var", lambda name: ".cpython-314.so"),
        "machine": lambda: monkeypatch.setattr("platform.machine", lambda: "aarch64"),
        "horovod": lambda: monkeypatch.setattr(source, "SDIST_SHA256", "0"),
        "patches": lambda: monkeypatch.setattr(patches, "PATCHES", patches.PATCHES[1:]),
        "header": lambda: monkeypatch.setattr(patches, "HEADER_TEXT", "#pragma once\n"),
    }.items():
        value()
        keys.append(key())
        assert len(set(keys)) == len(keys), name


def test_a_wheels_mpi_has_one_key_in_every_environment():
    """The library finds MPI beside itself, so the place of the environment that built it does not matter."""
    here, there = (
        toolchain.Mpi(
            Path(home) / "bin/mpicxx", Path(home) / "bin/mpirun", "mpich 4.3.2", "mpich", ("$ORIGIN/../../../..",)
        )
        for home in ("/home/a/.venv", "/home/b/.venv")
    )
    assert key(mpi=here) == key(mpi=there)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), min_size=1), st.data())
def test_changing_any_one_part_changes_the_key(parts, data):
    name = data.draw(st.sampled_from(sorted(parts)))
    assert cache.key_of(parts) != cache.key_of({**parts, name: parts[name] + "x"})


# The cache


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HPC_TRAIN_CACHE", str(tmp_path / "cache"))


def a_wheel(path: Path, content: str = "library") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("horovod/mpi_lib.so", content)
    return path


def test_a_stored_wheel_is_found_again_with_its_parts_as_text(own_cache, tmp_path):
    stored = cache.store_wheel("k1", a_wheel(tmp_path / "horovod-1.whl"), {"mpi": "MPICH 5"})
    assert cache.find_wheel("k1") == stored
    assert cache.find_wheel("k2") is None
    assert json.loads((stored.parent / cache.PARTS).read_text()) == {"mpi": "MPICH 5"}


def test_a_damaged_wheel_is_not_used(own_cache, tmp_path):
    stored = cache.store_wheel("k1", a_wheel(tmp_path / "horovod-1.whl", "x" * 1000), {})
    stored.write_bytes(stored.read_bytes()[:-40])
    assert cache.find_wheel("k1") is None


def test_builds_that_end_at_once_leave_one_whole_wheel_and_no_rubbish(own_cache, tmp_path):
    wheels = [a_wheel(tmp_path / str(index) / "horovod-1.whl", str(index)) for index in range(8)]
    failures = []

    def store(path: Path) -> None:
        try:
            for _ in range(20):
                cache.store_wheel("k1", path, {"from": path.parent.name})
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=store, args=(path,)) for path in wheels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = cache.find_wheel("k1")
    with zipfile.ZipFile(found) as archive:
        content = archive.read("horovod/mpi_lib.so").decode()
    assert json.loads((found.parent / cache.PARTS).read_text()) == {"from": content}
    assert os.listdir(cache.cache_folder() / "horovod") == ["k1"]


# The patches


@pytest.fixture(scope="module")
def horovod_source(tmp_path_factory):
    try:
        return source.unpack_sdist(tmp_path_factory.mktemp("sdist"))
    except UserError as error:
        pytest.skip(f"no source of Horovod: {error}")


@pytest.fixture
def a_copy(horovod_source, tmp_path):
    """The files that are patched, of the real source."""
    for name in {patch.file for patch in patches.PATCHES}:
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((horovod_source / name).read_text())
    return tmp_path / "source"


def test_every_patch_applies_once_to_the_released_source(a_copy):
    patches.apply(a_copy, "a-key", None)
    for patch in patches.PATCHES:
        assert patch.new in (a_copy / patch.file).read_text()
        if patch.file.endswith(".py"):
            compile((a_copy / patch.file).read_text(), patch.file, "exec")


def test_a_source_that_is_patched_already_or_changed_upstream_is_refused(a_copy):
    launcher = a_copy / patches.MPI_RUN
    launcher.write_text(launcher.read_text().replace("elif 'MPICH' in output", "elif 'mpich' in output"))
    with pytest.raises(UserError, match=r"mpi_run\.py is not the one this program knows.*0 times"):
        patches.apply(a_copy, "a-key", None)


def test_a_missing_file_is_refused(a_copy):
    (a_copy / "setup.py").unlink()
    with pytest.raises(UserError, match=r"setup\.py is not the one"):
        patches.apply(a_copy, "a-key", None)


def test_every_patch_has_a_reason_and_changes_something():
    for patch in patches.PATCHES:
        assert patch.why
        assert patch.old != patch.new


def test_the_build_knows_its_mpirun(tmp_path, monkeypatch):
    def named(mpirun):
        patches.apply(tmp_path, "a-key", mpirun, files=("none",))
        spec = importlib.util.spec_from_file_location("built", tmp_path / patches.BUILD_MODULE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.KEY == "a-key"
        return module.mpirun()

    site = program(tmp_path / "site" / "mpirun", "")
    own = program(tmp_path / "env" / "mpirun", "")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(own.parent))
    assert named(site) == str(site)
    assert named(None) == str(own)
    own.unlink()
    assert named(None) == "mpirun"


# Failed builds


@pytest.mark.parametrize(
    ("log", "error", "remedy"),
    [
        (
            "In file included from a.h:3:\n/s/horovod/tensorflow/mpi_ops.cc:12:10: fatal error: tensorflow/core/x.h: "
            "No such file or directory\n   12 | #include\ncompilation terminated.\nmake: *** [all] Error 2\n",
            "/s/horovod/tensorflow/mpi_ops.cc:12:10: fatal error: tensorflow/core/x.h: No such file or directory",
            "2.16 to 2.21 are known to work",
        ),
        (
            "x.cc:1:1: warning: unused [-Wunused]\n/s/a.cc:7:5: error: 'foo' was not declared\n"
            "/s/b.cc:9:9: error: late\n",
            "/s/a.cc:7:5: error: 'foo' was not declared",
            "see the log",
        ),
        (
            "/s/a.cc:7:10: fatal error: Python.h: No such file or directory\n",
            "/s/a.cc:7:10: fatal error: Python.h: No such file or directory",
            "python3-dev",
        ),
        (
            "x.cc:1:1: note: in expansion\nc++: fatal error: Killed signal terminated program cc1plus\n"
            "compilation terminated.\n",
            "c++: fatal error: Killed signal terminated program cc1plus",
            "memory",
        ),
        (
            "/tmp/cc.s: Assembler messages:\n/tmp/cc.s: Fatal error: can't write 12 bytes: No space left on device\n",
            "/tmp/cc.s: Fatal error: can't write 12 bytes: No space left on device",
            "disk is full",
        ),
        (
            "-- x\nCMake Error at third_party/gloo/CMakeLists.txt:1 (cmake_minimum_required):\n  Compatibility with "
            "CMake < 3.5 has been removed from CMake.\n\n  Update the VERSION argument\n",
            "CMake Error at third_party/gloo/CMakeLists.txt:1 (cmake_minimum_required): Compatibility with CMake < 3.5 "
            "has been removed from CMake.",
            "cmake is too old or too new",
        ),
        (
            "CMake Error at FindPackageHandleStandardArgs.cmake:230 (message):\n  Could NOT find MPI (missing: "
            "MPI_CXX_FOUND)\n",
            "CMake Error at FindPackageHandleStandardArgs.cmake:230 (message): Could NOT find MPI "
            "(missing: MPI_CXX_FOUND)",
            "MPICXX",
        ),
        (
            "CMake Error at CMakeLists.txt:18 (project):\n  No CMAKE_CXX_COMPILER could be found.\n",
            "CMake Error at CMakeLists.txt:18 (project): No CMAKE_CXX_COMPILER could be found.",
            "gcc and g++",
        ),
        (
            "/cuda/include/crt/host_config.h:143:2: error: #error -- unsupported GNU version! gcc versions later than "
            "12 are not supported!\n",
            "/cuda/include/crt/host_config.h:143:2: error: #error -- unsupported GNU version! gcc "
            "versions later than 12 are not supported!",
            "--cuda-archs",
        ),
        (
            'k.cu(41): error: identifier "x" is undefined\n',
            'k.cu(41): error: identifier "x" is undefined',
            "see the log",
        ),
        (
            "/usr/bin/ld: cannot find -lnccl: No such file\ncollect2: error: ld returned 1 exit status\n",
            "/usr/bin/ld: cannot find -lnccl: No such file",
            "--nccl-home",
        ),
        (
            "Could NOT find it\nerror: invalid command 'bdist_wheel'\n",
            "error: invalid command 'bdist_wheel'",
            "see the log",
        ),
    ],
)
def test_a_failed_build_is_explained_by_its_first_error_and_a_remedy(log, error, remedy):
    padding = "[ 12%] Building CXX object horovod/common/common.cc.o\n" * 1000
    text = diagnose.explain(padding + log + padding, Path("/cache/build.log"))
    assert diagnose.first_error(padding + log) == error
    assert error in text
    assert remedy in text
    assert "/cache/build.log" in text
    assert "\n" not in text


def test_a_log_without_an_error_still_names_the_log():
    assert "(full log: /l)" in diagnose.explain("all is well\n", Path("/l"))
