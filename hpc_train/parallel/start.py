"""Start a rank: Horovod, its GPU, its threads, its seeds, and what happens when it fails."""

import contextlib
import os
import socket
import sys
import time
import uuid

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.parallel import failure, shared_memory
from hpc_train.parallel.agreement import keras_settings
from hpc_train.parallel.agreement.waiting import end_after, wait_counter, waiting_tensors
from hpc_train.parallel.agreement.watch import watch_horovod
from hpc_train.parallel.cuda import list_gpus, offered
from hpc_train.parallel.launcher import detect, keep_sockets, wrong_size
from hpc_train.parallel.quiet import quiet_import
from hpc_train.parallel.world import World, choose_gpu, shared_gpus, threads_per_rank
from hpc_train.requirements import BUILD, check_keras, not_installed
from hpc_train.watch import guard
from hpc_train.watch.hang import HANG, after_of_environment
from hpc_train.watch.neighbours import this_process
from hpc_train.watch.record import RECORD, WITHOUT_END

# With hvd.init(), a rank that never joins a collective is reported after a minute; the job ends after half an hour.
_STALL = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "60", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "1800"}
# Where `hpc_train.watch` says more: seconds until Horovod's own warning, and those that its ends of a job come later.
_WARNING, _LATER = 120, 600
# On fewer CPUs than this, Horovod's thread sleeps (in µs) while it waits for ranks: else it takes TensorFlow's CPU.
_CPUS_TO_SPIN = 4
_SLEEP = "HPC_TRAIN_MPI_SLEEP"
_MICROSECONDS = "300"
_LATE = (
    "parallel.init() comes too late, TensorFlow has started already: call it before anything makes a tensor, a data "
    "set or a model, or asks TensorFlow for its GPUs"
)
# The first call's arguments and what it returned.
_started: list[tuple[dict, World]] = []


def init(
    seed: int | None = None, threads: int | None = None, deterministic: bool = False, keras_defaults: bool = False
) -> World:
    """Start Horovod on this rank and make TensorFlow share the node with the other ranks.

    Call it before any TensorFlow operation. From here on a failure on one rank ends all of them. A second call with the
    same arguments changes nothing.

    Args:
        seed: of Python, NumPy and Keras, the same on every rank; None sets no seed. (Random layers still draw different
            numbers on each rank: see `sync.Broadcast`.)
        threads: TensorFlow's threads on this rank; None shares the node's cores among its ranks.
        deterministic: ask TensorFlow for operations that give the same bits in every run.
        keras_defaults: give Keras's floatx, image_data_format and epsilon their defaults, whatever keras.json says.

    Returns:
        This rank's place among the ranks.

    Raises:
        UserError: Horovod is missing, Keras is too old, TensorFlow has started already, there are more ranks than
            GPUs, the launcher started N jobs of size 1 instead of N ranks, it is an elastic launch, ranks have other
            Keras settings, or an earlier call had other arguments.
    """
    arguments = {"seed": seed, "threads": threads, "deterministic": deterministic, "keras_defaults": keras_defaults}
    failure.install_early(detect().rank)
    if (world := _earlier(arguments)) is not None:
        return world
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    HANG.after = after_of_environment() if HANG.after is None else HANG.after
    for name, value in (settings(len(os.sched_getaffinity(0))) | _after_the_watch(HANG.after)).items():
        os.environ.setdefault(name, value)
    if problem := shared_memory.too_small(detect()):
        raise UserError(f"{problem}: ranks would end with SIGBUS; {shared_memory.REMEDY}").agreed()
    keras, tf, hvd = import_libraries()
    hvd.mpi_ops.init()
    keep_sockets()
    watch_horovod()
    world = World(
        rank=hvd.rank(),
        size=hvd.size(),
        local_rank=hvd.local_rank(),
        local_size=hvd.local_size(),
        node=hvd.cross_rank(),
        nodes=hvd.cross_size(),
    )
    failure.install(world)
    _check_launch(world, keras.backend.backend())
    _set_threads(tf, threads or threads_per_rank(world.local_size, len(os.sched_getaffinity(0)), os.cpu_count() or 1))
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    note = keras_settings.set_defaults(keras) if keras_defaults else keras_settings.note(keras)
    _take_gpu(tf, world, keras_settings.current(keras))
    if note and world.is_root:
        say(note, sys.stderr)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    _started[:] = [(arguments, world)]
    return world


def _earlier(arguments: dict) -> World | None:
    """The world of an earlier call whose Horovod still runs."""
    if not _started:
        return None
    import horovod.tensorflow as hvd

    before, world = _started[0]
    if not hvd.is_initialized():
        return None
    if changed := [name for name in arguments if arguments[name] != before[name]]:
        told = ", ".join(f"{name}={before[name]} and then {name}={arguments[name]}" for name in changed)
        raise UserError(
            f"parallel.init() is called twice, with {told}: call it once, at the top of the script"
        ).agreed()
    return world


def import_libraries():
    """The modules keras, tensorflow and horovod.tensorflow, without starting them.

    Raises:
        UserError: one of them is missing, or Keras is too old or has another backend.
    """
    check_keras()
    if "keras" not in sys.modules:
        # Keras imports its backend, which need not be installed.
        _check_backend(keras_settings.wanted_backend())
    with quiet_import():
        try:
            import keras
            import tensorflow as tf
        except ModuleNotFoundError as error:
            raise UserError(not_installed(error) or str(error)) from error
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise UserError(f"no usable Horovod here ({error}); run `{BUILD}`") from error
    return keras, tf, hvd


def _check_launch(world: World, backend: str) -> None:
    if os.environ.get("HOROVOD_ELASTIC", "0") != "0":
        # The ranks talk to each other in `init`: one that joins would wait there for ranks that are past it.
        raise UserError(
            "parallel.init() and the trainers need ranks that stay: leave out --host-discovery-script, --min-np and "
            "--max-np, and continue a trainer's run that was cut short with --resume; a script of your own can be "
            "elastic with hvd.init() and hvd.elastic.run, see docs/elastic.md"
        ).agreed()
    if problem := wrong_size(detect(), world.size):
        raise UserError("; ".join(problem))
    if not (microseconds := os.environ.get(_SLEEP, "0")).isdecimal():
        raise UserError(
            f"{_SLEEP} is {microseconds!r}; give the microseconds that Horovod sleeps before it checks again whether "
            "all ranks have come, or 0 to make it check without a pause"
        ).agreed()
    _check_backend(backend)


def _check_backend(backend: str) -> None:
    if backend != "tensorflow":
        raise UserError(keras_settings.wrong_backend(backend))


def _set_threads(tf, threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise UserError(_LATE) from error


def _take_gpu(tf, world: World, settings: dict) -> None:
    """Pin this rank's GPU; then let all ranks check together that each has one of its own. Collective.

    Args:
        tf: the module.
        world: the ranks.
        settings: of Keras, which must be the same on all ranks.
    """
    # No collective until the GPU is pinned: TensorFlow would take every GPU to run it.
    gpu, problem = None, None
    try:
        gpu = _pin_gpu(tf, world)
    except UserError as error:
        problem = str(error)
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")

    from hpc_train.parallel.collectives import broadcast_object, gather_different, gather_objects

    failure.install(world, broadcast_object(uuid.uuid4().hex))
    job, HANG.after = broadcast_object((f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}", HANG.after))
    known = gather_objects((this_process(world.rank, guard.process()), gpu, problem))
    HANG.begin(world.rank, [member for member, *_ in known], job, waiting_tensors, end_after)
    RECORD.waited = wait_counter() if world.size > 1 else lambda: 0.0
    keras_settings.check_alike(gather_different(settings, "hpc_train.keras"))
    if world.is_root and gpu is None and not problem and (idle := offered()):
        where = f"{socket.gethostname()} offers {idle} GPU{'s' * (idle > 1)}"
        say(f"note: {where}, but TensorFlow sees none: it computes on CPUs; `hpc-train doctor` shows why", sys.stderr)
    problems = [problem for *_, problem in known if problem]
    first = problems[0] if problems else shared_gpus([(one.rank, one.host, held) for one, held, _ in known if held])
    if first:
        raise UserError(first).agreed()


def _after_the_watch(hang_after: float | None) -> dict[str, str]:
    """Limits of Horovod and Gloo that let a report of a hang come first."""
    end = str(int(max(WITHOUT_END, hang_after or 0) + _LATER))
    return {
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(_WARNING),
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": end,
        "HOROVOD_GLOO_TIMEOUT_SECONDS": end,
    }


def settings(cpus: int) -> dict[str, str]:
    """Environment variables for Horovod on a rank that may run on this many CPUs."""
    return _STALL | ({_SLEEP: _MICROSECONDS} if cpus < _CPUS_TO_SPIN else {})


def _pin_gpu(tf, world: World) -> str | None:
    gpus = list_gpus()
    mine = choose_gpu(len(gpus), world)
    if mine is None:
        return None
    try:
        tf.config.set_visible_devices(gpus[mine], "GPU")
        tf.config.experimental.set_memory_growth(gpus[mine], True)
        return _bus_id(tf, mine)
    except (RuntimeError, tf.errors.OpError) as error:
        # Both refuse once TensorFlow has made its devices, in its own words.
        raise UserError(f"{_LATE} (TensorFlow: {str(error).splitlines()[0]})") from error


def _bus_id(tf, gpu: int) -> str:
    # Only here does TensorFlow say which card a device is. It creates the device for that: this one alone, as the rank
    # will use it, or it would take all of every card's memory.
    from tensorflow.python.client import device_lib

    only = tf.compat.v1.GPUOptions(visible_device_list=str(gpu), allow_growth=True)
    devices = device_lib.list_local_devices(tf.compat.v1.ConfigProto(gpu_options=only))
    described = [device.physical_device_desc for device in devices]
    return next(text.split("pci bus id: ")[1].split(",")[0] for text in described if "pci bus id: " in text)
