"""What the builder of Horovod finds and uses on a machine, and how it tests what it has built; without a compiler."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_build import CUDA, SITE_MPI, TENSORFLOW, program, replaced

from hpc_train.errors import UserError
from hpc_train.horovod_build import command, gpu, prove, toolchain, wheel
from hpc_train.horovod_build.command import BuildHorovod, run


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """An environment and a PATH with nothing in them, and no variables."""
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "path").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("HPC_TRAIN_CACHE", str(tmp_path / "cache"))
    for name in ("MPICXX", "CXX", "CUDA_HOME", "CUDA_PATH", "NCCL_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "path"


# CPU builds


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


def test_instead_of_an_mpicxx_without_mpi_headers_the_wheel_is_used(bare_machine, tmp_path, monkeypatch, capsys):
    program(bare_machine / "mpicxx", "echo 'x.cc:1:10: fatal error: mpi.h: No such file or directory' >&2; exit 1")
    wheels = tmp_path / "env" / "bin" / "mpicxx"
    monkeypatch.setattr(toolchain, "install", lambda *_, **__: program(wheels, "true"))
    assert toolchain.find_mpi().mpicxx == wheels
    assert "has no mpi.h" in capsys.readouterr().out


def test_mpicxx_of_the_variable_comes_before_the_environments_before_the_one_on_path(
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

    def install(*requirements, what):
        asked.append(requirements)
        program(tmp_path / "env" / "bin" / "mpicxx", "true")

    monkeypatch.setattr(toolchain, "install", install)
    toolchain.find_mpi()
    assert asked == [("mpich==4.3.2",)]


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


def test_jobs_are_limited_by_cores_and_by_memory(monkeypatch):
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


# GPU builds


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


def test_the_given_toolkit_comes_before_cuda_home_before_nvcc_on_path(bare_machine, tmp_path, monkeypatch):
    on_path = a_toolkit(tmp_path / "on_path", "12.1")
    monkeypatch.setenv("PATH", str(on_path / "bin"), prepend=os.pathsep)
    assert gpu.find_cuda() == gpu.Cuda(on_path, "12.1")
    monkeypatch.setenv("CUDA_HOME", str(a_toolkit(tmp_path / "home", "12.5")))
    assert gpu.find_cuda() == gpu.Cuda(tmp_path / "home", "12.5")
    assert gpu.find_cuda(a_toolkit(tmp_path / "given", "13.0")) == gpu.Cuda(tmp_path / "given", "13.0")


def test_an_nvcc_on_path_that_only_calls_another_is_skipped(bare_machine, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(program(tmp_path / "bin" / "nvcc", "echo release 12.1").parents[1]))
    monkeypatch.setenv("CUDA_PATH", str(a_toolkit(tmp_path / "real", "12.5")))
    assert gpu.find_cuda() == gpu.Cuda(tmp_path / "real", "12.5")


def test_a_given_toolkit_without_nvcc_is_not_replaced_by_another(bare_machine, tmp_path, monkeypatch):
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


def test_the_given_nccl_comes_first_and_keeps_its_absolute_run_path(bare_machine, tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_HOME", str(an_nccl(tmp_path / "variable")))
    given = an_nccl(tmp_path / "given", "lib64/libnccl.so")
    assert gpu.find_nccl(given).rpath == (str(given / "lib64"),)
    assert gpu.find_nccl().library == tmp_path / "variable/lib/libnccl.so"


def test_a_missing_nccl_is_one_line(bare_machine, tmp_path):
    with pytest.raises(UserError, match=r"^no NCCL [^\n]*nvidia-nccl-cu12[^\n]*--nccl-home$"):
        gpu.find_nccl(tmp_path / "none")


def test_gpu_options_without_gpu_are_refused(bare_machine, monkeypatch):
    monkeypatch.setattr(toolchain, "find_tensorflow", lambda: TENSORFLOW)
    with pytest.raises(UserError, match="--cuda-archs is for GPU builds only: add --gpu"):
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


# The test of a build


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


def test_a_build_with_right_sums_passes(launcher):
    launcher(ranks_report())
    assert prove.prove(gpu=False) == ("2-rank all-reduce right over MPI and Gloo; built: mpi yes, gloo yes, nccl no")


def test_ranks_that_have_not_found_each_other_are_an_error(launcher):
    launcher(ranks_report(size=1, total=(0, 1, 2, 3), mean=(1.0,)))
    with pytest.raises(UserError, match="in a world of 1, want"):
        prove.prove(gpu=False)


def test_a_library_that_does_not_load_is_reported_in_the_loaders_words(launcher, monkeypatch):
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
    with pytest.raises(UserError, match="should have NCCL, but was built without it"):
        prove.prove(gpu=True)


def test_the_package_imports_without_tensorflow_or_horovod():
    code = (
        "import sys, hpc_train.horovod_build.command; assert not {'tensorflow', 'horovod', 'keras'} & set(sys.modules)"
    )
    root = Path(command.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(root)})
