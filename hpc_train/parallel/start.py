"""Start-up of a rank: Horovod, its GPU, its threads, its seeds, and what happens when it fails."""

import os
import socket
import sys
import uuid

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.parallel import failure
from hpc_train.parallel.cuda import list_gpus, offered
from hpc_train.parallel.launcher import detect, wrong_size
from hpc_train.parallel.quiet import quiet_import
from hpc_train.parallel.world import World, choose_gpu, shared_gpus, threads_per_rank
from hpc_train.requirements import BUILD

# A rank that never joins a collective is reported after a minute; the job ends after half an hour.
_STALL = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "60", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "1800"}
# With fewer CPUs than this, Horovod's thread would take TensorFlow's while it waits for other ranks: it sleeps, in µs.
_CPUS_TO_SPIN = 4
_SLEEP = "HPC_TRAIN_MPI_SLEEP"
_MICROSECONDS = "300"


def init(seed: int | None = None, threads: int | None = None, deterministic: bool = False) -> World:
    """Start Horovod on this rank and make TensorFlow share the node with the other ranks.

    Call it before any TensorFlow operation. A failure on one rank ends all of them from here on.

    Args:
        seed: seed of Python, NumPy and Keras, the same on every rank; None leaves them alone.
            (Random layers draw differently on each rank all the same: see `sync.Broadcast`.)
        threads: TensorFlow's threads on this rank; None shares the node's cores among its ranks.
        deterministic: ask TensorFlow for operations that give the same bits in every run.

    Raises:
        UserError: no Horovod, called too late, more ranks than GPUs, or N jobs of size 1 instead of N ranks.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name, value in _settings(len(os.sched_getaffinity(0))).items():
        os.environ.setdefault(name, value)
    with quiet_import():
        import keras
        import tensorflow as tf

        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise UserError(f"no usable Horovod here ({error}); run `{BUILD}`") from error

    hvd.init()
    world = World(
        rank=hvd.rank(),
        size=hvd.size(),
        local_rank=hvd.local_rank(),
        local_size=hvd.local_size(),
        node=hvd.cross_rank(),
        nodes=hvd.cross_size(),
    )
    failure.install(world)
    problem = wrong_size(detect(), world.size)
    if problem:
        raise UserError("; ".join(problem))
    if not (told := os.environ.get(_SLEEP, "0")).isdecimal():
        raise UserError(
            f"{_SLEEP} is {told!r}; give the microseconds that Horovod sleeps between two looks whether all ranks have "
            "come, or 0 to have it spin"
        ).agreed()
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"Keras runs on {keras.backend.backend()}; Horovod needs KERAS_BACKEND=tensorflow")

    threads = threads or threads_per_rank(world.local_size, len(os.sched_getaffinity(0)), os.cpu_count() or 1)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise UserError(
            "parallel.init() comes too late, TensorFlow has started already: call it before anything makes a tensor, "
            "a data set or a model"
        ) from error
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    # No collective until the GPU is pinned: TensorFlow would take every GPU to run it.
    gpu, problem = None, None
    try:
        gpu = _pin_gpu(tf, world)
    except UserError as error:
        problem = str(error)
        tf.config.set_visible_devices([], "GPU")

    from hpc_train.parallel.collectives import broadcast_object, gather_objects

    failure.install(world, broadcast_object(uuid.uuid4().hex))
    everybody = gather_objects((world.rank, socket.gethostname(), gpu, problem))
    if world.is_root and gpu is None and not problem and (idle := offered()):
        where = f"{socket.gethostname()} offers {idle} GPU{'s' * (idle > 1)}"
        say(f"note: {where}, but TensorFlow sees none: it computes on CPUs; `hpc-train doctor` tells why", sys.stderr)
    problems = [problem for *_, problem in everybody if problem]
    problem = problems[0] if problems else shared_gpus([owner for *owner, _ in everybody if owner[2]])
    if problem:
        raise UserError(problem).agreed()
    if seed is not None:
        keras.utils.set_random_seed(seed)
    return world


def _settings(cpus: int) -> dict[str, str]:
    """Variables for Horovod on a rank that may run on so many CPUs."""
    return _STALL | ({_SLEEP: _MICROSECONDS} if cpus < _CPUS_TO_SPIN else {})


def _pin_gpu(tf, world: World) -> str | None:
    gpus = list_gpus()
    mine = choose_gpu(len(gpus), world)
    if mine is None:
        return None
    tf.config.set_visible_devices(gpus[mine], "GPU")
    tf.config.experimental.set_memory_growth(gpus[mine], True)
    return _bus_id(tf, mine)


def _bus_id(tf, gpu: int) -> str:
    # The only place where TensorFlow tells which card a device is. It creates the device: this one alone, as the
    # rank will use it, or it would take all of every card's memory.
    from tensorflow.python.client import device_lib

    only = tf.compat.v1.GPUOptions(visible_device_list=str(gpu), allow_growth=True)
    devices = device_lib.list_local_devices(tf.compat.v1.ConfigProto(gpu_options=only))
    described = [device.physical_device_desc for device in devices]
    return next(text.split("pci bus id: ")[1].split(",")[0] for text in described if "pci bus id: " in text)
