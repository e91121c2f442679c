"""How fast is another framework? hpc-train bench frameworks --framework pytorch-ddp --np 2 --data shards/mnist

The command starts one process group on this machine. Its measurement has the format of `hpc-train bench throughput`, so
the two can be compared. `hpc_train.bench.frameworks` describes the measurement. `hpc-train bench scaling ... --peers`
runs it beside ours.
"""

import json
import os
import shlex
import socket
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hpc_train.bench.frameworks import group, networks
from hpc_train.bench.frameworks.start import FRAMEWORKS, check, interpreter
from hpc_train.errors import UserError
from hpc_train.files.json_file import write_json

_SCRIPTS = {"pytorch-ddp": "ddp.py", "tf.distribute": "tf_distribute.py"}
_MODELS = {"mnist": "deep", "resnet": "resnet20", "climate": "tiramisu-small"}
# Of samples, in memory.
_MOST_BYTES = 2**30


@dataclass(frozen=True)
class FrameworkBench:
    """Measure the throughput of another framework on the same network, data, batch and threads."""

    data: Path
    """Folder of shards, or other data that the trainers take. The first GiB of its training split is kept in memory."""
    framework: Literal[FRAMEWORKS] = "pytorch-ddp"
    """DistributedDataParallel of PyTorch, or MultiWorkerMirroredStrategy of TensorFlow."""
    trainer: Literal["mnist", "resnet", "climate"] = "mnist"
    """The trainer whose network, loss and optimizer are measured."""
    model: str | None = None
    """Network: deep or lstm for mnist; resnet20, 50 and others for resnet; tiramisu or tiramisu-small for climate."""
    np: int = 2
    """Ranks, all on this machine."""
    batch_size: int = 64
    """Samples in a step on each rank."""
    threads: int | None = None
    """Threads in each rank; by default the ranks share the cores."""
    steps: int = 60
    """Counted steps in each round."""
    warmup: int = 2
    """Steps at the beginning of each round that are not counted."""
    rounds: int = 7
    """Rounds. Each has every way once, in an order that rotates. One more goes before them, and is not counted."""
    rate: float = 1e-4
    """Learning rate. It makes no difference to the speed."""
    output: Path | None = None
    """JSON file for the figures; by default throughput.json in a new folder under runs/."""
    peers_python: Path | None = None
    """Python that has torch; by default this one."""


def run(options: FrameworkBench) -> None:
    """Measure, print and write.

    Raises:
        UserError: options or data that cannot be used, or a rank that failed.
    """
    model = options.model or _MODELS[options.trainer]
    numbers = (options.np, options.batch_size, options.threads or 1, options.steps, options.warmup, options.rounds)
    if min(numbers) < 1:
        raise UserError("--np, --batch-size, --threads, --steps, --warmup and --rounds must be at least 1")
    if options.output and not options.output.absolute().parent.is_dir():
        raise UserError(f"--output {options.output}: the folder {options.output.parent} does not exist; make it first")
    check(options.framework, options.trainer, model, options.peers_python)
    from hpc_train.bench.frameworks.figures import measurement, report
    from hpc_train.parallel.world import threads_per_rank
    from hpc_train.training.run_folder import Run

    cores = len(os.sched_getaffinity(0))
    threads = options.threads or threads_per_rank(options.np, cores, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="hpc-train-") as name:
        folder = Path(name)
        catalogue, (counted, trained) = _prepare(options, model, threads, folder)
        group.run(*_processes(options, threads, folder), folder, options.framework)
        ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(options.np)]
    known = {"command": shlex.join(sys.orig_argv), "framework": options.framework, "trainer": options.trainer}
    known |= {"options": {**asdict(options), "threads": threads, "model": model}, "data": catalogue.identity}
    known |= {"model": model, "batch_size": options.batch_size, "ranks": options.np, "threads": threads}
    known |= {"parameters": counted, "gradient_bytes": 4 * trained}
    found = measurement(known, ranks)
    output = options.output or Run.new_path(f"throughput-{options.framework}-{model}") / "throughput.json"
    write_json(output, found, "give another --output")
    report(found, output)


def _prepare(options: FrameworkBench, model: str, threads: int, folder: Path):
    """Write the job and its samples into `folder`.

    Returns:
        The catalogue of the training split, and the numbers of the network's parameters, (all, trained).
    """
    import numpy as np

    from hpc_train.data.reading.reader import Reader
    from hpc_train.trainers import TRAINERS

    catalogue = TRAINERS[options.trainer].module.Options(data=options.data, model=model).catalogue("train")
    catalogue.stored_only("this command")
    shape, classes = catalogue.input_shape, catalogue.classes
    labels = shape[:2] if options.trainer == "climate" else ()
    fits = len(shape) == 3 and min(shape[:2]) >= 8 and catalogue.channels == "last"
    if not (fits and catalogue.target_shape == labels and classes):
        what = "a label for each pixel" if labels else "one label each"
        raise UserError(
            f"{options.data}: samples have shape {shape}, labels {catalogue.target_shape}; the other frameworks take "
            f"images (height, width, channels) of at least 8 x 8, with {what} and a known number of classes"
        )
    samples = min(catalogue.samples, _MOST_BYTES // catalogue.sample_bytes)
    if samples < options.np * options.batch_size:
        raise UserError(
            f"{options.data}: {samples} samples are too few for a step of {options.np} ranks with {options.batch_size} "
            "each; use a smaller --batch-size"
        )
    inputs, targets = Reader(catalogue).read(np.arange(samples))
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "targets.npy", targets.astype(np.int64))
    job = {name: getattr(options, name) for name in ("trainer", "batch_size", "steps", "warmup", "rounds", "rate")}
    job |= {"data": os.path.abspath(options.data), "model": model, "ranks": options.np, "threads": threads}
    job |= {"input_shape": shape, "classes": classes, **asdict(networks.RECIPES[options.trainer])}
    counted = networks.parameters(options.trainer, model, shape, classes)
    job |= {"parameters": counted, "class_weights": None, **networks.sizes(model)}
    if options.trainer == "climate":
        job |= of_maps(options.data, model, catalogue)
    (folder / "job.json").write_text(json.dumps(job))
    return catalogue, counted


def of_maps(data: Path, model: str, catalogue) -> dict:
    """What a job has more for label maps: what the climate trainer takes from statistics."""
    from hpc_train.climate import Options
    from hpc_train.losses.options import weights_of_classes

    chosen = Options(data=data, model=model)
    statistics = chosen.load_statistics()
    shift, divisor = statistics.normalisation(chosen.normalise)
    counts = chosen.class_counts(statistics, catalogue.classes)
    weights = weights_of_classes(chosen, catalogue.classes, counts).tolist()
    return {"shift": shift.tolist(), "divisor": divisor.tolist(), "class_weights": weights}


def _processes(options: FrameworkBench, threads: int, folder: Path) -> tuple[list[list[str]], list[dict[str, str]]]:
    """The command and the environment of each rank."""
    script = Path(__file__).parent / "scripts" / _SCRIPTS[options.framework]
    ranks = range(options.np)
    argv = [interpreter(options.framework, options.peers_python), str(script), str(folder)]
    common = {**os.environ, "OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    if options.framework == "pytorch-ddp":
        # That Python must not find this one's modules. All ranks are here, so Gloo needs no name of this host.
        common.pop("PYTHONPATH", None)
        common.setdefault("GLOO_SOCKET_IFNAME", "lo")
        return [[*argv, str(rank)] for rank in ranks], [common for _ in ranks]
    root = str(Path(__file__).parents[3])
    common["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
    workers = [f"127.0.0.1:{port}" for port in _free_ports(options.np)]
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}} for rank in ranks]
    return [[*argv, str(rank)] for rank in ranks], [{**common, "TF_CONFIG": json.dumps(task)} for task in tasks]


def _free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
