"""GPUs: given by Slurm, seen by the driver and by TensorFlow, taken by a rank."""

import ctypes

from hpc_train.doctor.facts import Facts
from hpc_train.doctor.findings import Finding, some, unless_sealed
from hpc_train.errors import UserError
from hpc_train.parallel.cuda import list_gpus, visible
from hpc_train.parallel.world import World, choose_gpu, shared_gpus
from hpc_train.requirements import BUILD, pip_install

NAME = "GPUs"


def take(shown: list[str] | None, seen: int, world: World) -> tuple[int | None, str | None, str]:
    """The GPU that training would take on this rank: its index among the visible ones, its name, or what is wrong."""
    try:
        mine = choose_gpu(seen or len(shown or ()), world)
    except UserError as error:
        return None, None, str(error)
    if mine is None:
        return None, None, ""
    return mine, shown[mine] if shown else str(mine), ""


def driver() -> tuple[list[str], str]:
    """PCI bus ids of the GPUs that CUDA's driver shows this process, or why it shows none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return [], "no NVIDIA driver (libcuda.so.1)"
    if status := cuda.cuInit(0):
        return [], f"the NVIDIA driver finds no GPU (cuInit: error {status})"
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    text = ctypes.create_string_buffer(32)
    buses = []
    for index in range(count.value):
        device = ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetPCIBusId(text, len(text), device)
        buses.append(text.value.decode())
    return buses, "" if buses else "the NVIDIA driver shows no GPU"


def pin(world: World) -> int:
    """Leave TensorFlow the GPU that this rank takes, as training does; how many it sees. Before any operation."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    cards = list_gpus()
    index, _, problem = take(visible(), len(cards), world)
    tf.config.set_visible_devices([] if problem or not cards else cards[index], "GPU")
    if cards and not problem:
        tf.config.experimental.set_memory_growth(cards[index], True)
    return len(cards)


def judge(everybody: list[Facts], cuda: bool, nccl: bool, inside: str, alone: bool = False) -> Finding:
    """Whether each rank has a GPU of its own, where the job has GPUs.

    Args:
        everybody: facts of each rank.
        cuda: whether TensorFlow is a CUDA build.
        nccl: whether Horovod has NCCL.
        inside: the container, or empty.
        alone: these are facts of one process of several that do not know each other.
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
    if problem := next((facts.problem for facts in everybody if facts.problem), ""):
        return Finding(NAME, "wrong", value, problem)
    owners = [(facts.rank, facts.host, facts.bus) for facts in everybody if facts.bus]
    if problem := shared_gpus(owners):
        return Finding(NAME, "wrong", value, problem)
    if alone:
        return Finding(NAME, "note", value, "which rank takes which is settled only when the ranks know each other")
    value += f"; each rank takes one of its own, rank 0 {everybody[0].takes}"
    if len(everybody) > 1 and not nccl:
        how = unless_sealed(inside, f"{BUILD} --gpu")
        return Finding(NAME, "note", f"{value}; Horovod has no NCCL and sums on the CPU", how)
    idle = [facts for facts in everybody if facts.local_rank == 0 and len(facts.visible or ()) > facts.local_size]
    if idle:
        unused = len(idle[0].visible) - idle[0].local_size
        return Finding(NAME, "note", f"{value}; {unused} idle on {idle[0].host}", "start one rank a GPU")
    return Finding(NAME, "ok", value)


def _reason(facts: Facts, cuda: bool) -> str:
    if not cuda:
        return ": it is a CPU build"
    return f": {facts.no_driver}" if facts.no_driver else ": its CUDA libraries do not load"


def _remedy(facts: Facts, cuda: bool, inside: str) -> str:
    if not cuda:
        how = unless_sealed(inside, f"{pip_install('gpu')}, then {BUILD} --gpu")
        return f"{how}; or, to train on CPUs, ask for no GPUs"
    if not facts.no_driver:
        how = f"{pip_install('gpu')}, or load the CUDA 12 and cuDNN modules that it needs"
        return unless_sealed(inside, how)
    if inside:
        return "start the container with --nv (Docker: --gpus all)"
    return (
        "does `nvidia-smi` work on that node? If not, ask its administrator; if it does, look at CUDA_VISIBLE_DEVICES"
    )


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return (str(low) if low == high else f"{low} to {high}") if high else "none"


def row(facts: Facts) -> dict:
    """One line of the table of ranks."""
    return {
        "rank": facts.rank,
        "host": facts.host,
        "local_rank": facts.local_rank,
        "visible": facts.visible,
        "takes": facts.takes,
        "bus": facts.bus,
        "cpus": facts.cpus,
        "threads": facts.threads,
    }
