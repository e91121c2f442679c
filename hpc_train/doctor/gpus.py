"""GPUs: which Slurm gave, which the driver and TensorFlow see, and which one a rank takes."""

import ctypes
import re
from pathlib import Path

from hpc_train.doctor import network
from hpc_train.doctor.facts import Facts
from hpc_train.doctor.findings import Finding, some, unless_sealed
from hpc_train.errors import UserError
from hpc_train.parallel.cuda import list_gpus, visible
from hpc_train.parallel.world import World, choose_gpu, shared_gpus
from hpc_train.requirements import BUILD, pip_install

NAME = "GPUs"
# The oldest driver for each CUDA (NVIDIA, "CUDA Compatibility", minor version compatibility).
_OLDEST = {11: 450, 12: 525, 13: 580}


def take(shown: list[str] | None, seen: int, world: World) -> tuple[int | None, str | None, str]:
    """The GPU that training would take on this rank.

    Args:
        shown: the GPUs in CUDA_VISIBLE_DEVICES; None if it is not set.
        seen: number of GPUs that TensorFlow sees.
        world: the rank and the size of the job.

    Returns:
        Its index among the visible ones, its name, and the problem if there is one.
    """
    try:
        mine = choose_gpu(seen or len(shown or ()), world)
    except UserError as error:
        return None, None, str(error)
    if mine is None:
        return None, None, ""
    return mine, shown[mine] if shown else str(mine), ""


def driver() -> tuple[list[str], str, int]:
    """The GPUs that CUDA's driver shows this process.

    Returns:
        Their PCI bus ids, the reason if there is none, and the newest CUDA that the driver knows (1000 x major + 10 x
        minor; 0 if there is none).
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return [], "no NVIDIA driver (libcuda.so.1)", 0
    if status := cuda.cuInit(0):
        return [], f"the NVIDIA driver finds no GPU (cuInit: error {status})", 0
    count, version = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    text = ctypes.create_string_buffer(32)
    buses = []
    for index in range(count.value):
        device = ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetPCIBusId(text, len(text), device)
        buses.append(text.value.decode())
    return (buses, "", version.value) if buses else ([], "the NVIDIA driver shows no GPU", 0)


def release(root: Path = network.ROOT) -> str:
    """The version of the NVIDIA driver that the kernel has loaded; empty without one."""
    found = re.search(r"Kernel Module .*?(\d+\.\d[.\d]*) ", network.read(root / "proc/driver/nvidia/version"))
    return found[1] if found else ""


def judge_driver(everybody: list[Facts], built: str) -> Finding | None:
    """A driver that is too old for TensorFlow; None where none is. Within a major version of CUDA any driver will do.

    Args:
        everybody: facts of each rank.
        built: the version of CUDA that TensorFlow is built for; empty for a CPU build.
    """
    number = re.match(r"\d+", built)
    major = int(number[0]) if number else 0
    old = [facts for facts in everybody if 0 < facts.driver_cuda // 1000 < major]
    if not old:
        return None
    where = "" if len(old) == len(everybody) else f" on {some(sorted({facts.host for facts in old}))}"
    knows = f"CUDA {old[0].driver_cuda // 1000}.{old[0].driver_cuda % 1000 // 10}"
    name = f"the NVIDIA driver {old[0].driver}".rstrip()
    value = f"TensorFlow is built for CUDA {built}, but {name}{where} knows no more than {knows}"
    newer = f"driver {_OLDEST[major]} or newer" if major in _OLDEST else "a newer driver"
    how = f"take nodes with {newer}, or load the site's module for cuda-compat of CUDA {major}"
    return Finding(NAME, "wrong", value, how)


def pin(world: World) -> int:
    """Let TensorFlow use only the GPU that this rank takes, as training does. Call it before any operation.

    Returns:
        The number of GPUs that TensorFlow saw before.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    cards = list_gpus()
    index, _, _ = take(visible(), len(cards), world)
    mine = cards[index] if cards and index is not None else None
    tf.config.set_visible_devices(mine or [], "GPU")
    if mine:
        tf.config.experimental.set_memory_growth(mine, True)
    return len(cards)


def judge(everybody: list[Facts], cuda: bool, nccl: bool, inside: str, alone: bool = False) -> Finding:
    """Judge whether each rank has a GPU of its own, if the job has GPUs.

    Args:
        everybody: facts of each rank.
        cuda: whether TensorFlow is a CUDA build.
        nccl: whether Horovod has NCCL.
        inside: the container, or empty.
        alone: whether these are the facts of one process, and the ranks have not found each other.
    """
    offered = [max(facts.given, len(facts.visible or ())) for facts in everybody]
    most, seen = max(offered), [facts.seen for facts in everybody]
    if not most and not any(seen):
        return Finding(NAME, "ok", "none given, none seen: this job runs on CPUs")
    given = any(facts.given for facts in everybody)
    offer = f"{most} a node given by Slurm, " if given else f"{most} visible, " if most else ""
    value = f"{offer}{_range(seen)} seen by TensorFlow"
    blind = [facts for facts in everybody if not facts.seen]
    if blind:
        where = "" if len(blind) == len(everybody) else f" on {some(sorted({facts.host for facts in blind}))}"
        return Finding(NAME, "wrong", value + where + _reason(blind[0], cuda), _remedy(blind[0], cuda, inside))
    owners = [(facts.rank, facts.host, facts.bus) for facts in everybody if facts.bus]
    if problem := next((facts.problem for facts in everybody if facts.problem), None) or shared_gpus(owners):
        return Finding(NAME, "wrong", value, problem)
    if alone:
        how = "fix the launch first: only ranks that have found each other know which GPU is whose"
        return Finding(NAME, "note", value, how)
    value += f"; each rank takes its own, rank 0 takes {everybody[0].takes}"
    if len(everybody) > 1 and not nccl:
        how = unless_sealed(inside, f"{BUILD} --gpu")
        return Finding(NAME, "note", f"{value}; Horovod has no NCCL and sums on the CPU", how)
    for facts in everybody:
        if facts.local_rank == 0 and (unused := len(facts.visible or ()) - facts.local_size) > 0:
            return Finding(NAME, "note", f"{value}; {unused} idle on {facts.host}", "start one rank for each GPU")
    return Finding(NAME, "ok", value)


def _reason(facts: Facts, cuda: bool) -> str:
    if not cuda:
        return ": it is a CPU build"
    return f": {facts.no_driver}" if facts.no_driver else ": its CUDA libraries do not load"


def _remedy(facts: Facts, cuda: bool, inside: str) -> str:
    if not cuda:
        how = unless_sealed(inside, f"{pip_install('gpu')}, then {BUILD} --gpu")
        return f"{how}; or train on CPUs, and request no GPUs"
    if not facts.no_driver:
        return unless_sealed(inside, f"{pip_install('gpu')}, or load the modules for CUDA 12 and cuDNN")
    if inside:
        return "start the container with --nv (Docker: --gpus all)"
    return "run `nvidia-smi` on that node: if it fails, ask the administrator; if it works, check CUDA_VISIBLE_DEVICES"


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return (str(low) if low == high else f"{low} to {high}") if high else "none"


def row(facts: Facts) -> dict:
    """The row of one rank in the table of ranks."""
    return {
        "rank": facts.rank,
        "host": facts.host,
        "local_rank": facts.local_rank,
        "visible": facts.visible,
        "takes": facts.takes,
        "bus": facts.bus,
        "cpus": facts.cpus,
        "numa": {"cpus": facts.numa.cpus, "gpu": facts.numa.gpu},
        "threads": facts.threads,
    }
