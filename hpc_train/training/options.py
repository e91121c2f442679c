"""The options that all trainers have."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from hpc_train.data.options import DataOptions, ReadOptions
from hpc_train.errors import UserError
from hpc_train.optim.recipe import RecipeOptions
from hpc_train.training.monitor import parse
from hpc_train.training.transfer import TransferOptions


@dataclasses.dataclass(frozen=True)
class HeldOutOptions:
    """Which data a trainer evaluates on."""

    GROUP = "data"

    test_data: Path | None = None
    """Held-out data, if it is not the split validation or test of --data."""
    test_inputs: tuple[str, ...] = ()
    """Data sets of the held-out inputs, where their names are not those of --inputs: x_test beside x_train in one file.
    Without --test-data they are in --data."""
    test_targets: tuple[str, ...] = ()
    """Data sets of the held-out targets, likewise."""
    test_sample_weights: str | None = None
    """Data set of the held-out sample weights, likewise."""
    test_lengths: tuple[str, ...] = ()
    """Data sets of the lengths of held-out sequences, likewise."""

    def held_out_names(self) -> dict:
        """The options that name data sets, as the held-out data have them; only those that differ."""
        names = ("inputs", "targets", "sample_weights", "lengths")
        return {name: value for name in names if (value := getattr(self, f"test_{name}"))}


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
    """How long a trainer trains, and at which learning rate."""

    GROUP = "recipe"

    epochs: int = 12
    """Passes over the data; N ranks take 1/N of the steps that one rank takes."""
    batch_size: int = 64
    """Samples that a rank computes at once; the global batch is this times --accumulate times the number of ranks."""
    lr: float = 0.01
    """Learning rate at the base batch."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the learning rate grows with global batch / base batch."""
    base_batch: int = 64
    """Global batch for which --lr was chosen."""
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises from that of one rank (at most --lr) to its scaled value."""
    decay: Literal["cosine", "step", "poly", "none"] = "cosine"
    """How the learning rate falls after warm-up. cosine: along a cosine to 0; poly: along a power to 0; step: to a
    tenth at each of --decay-at."""
    decay_at: tuple[float, ...] = (0.5, 0.75)
    """With --decay step: the learning rate falls after these shares of the training."""
    decay_power: float = 2.0
    """With --decay poly: the power."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The run folder, what is written to it, and how the processes compute."""

    GROUP = "run"

    run: Path | None = None
    """Run folder; by default a new one under runs/."""
    resume: bool = False
    """Continue the run in --run from its newest checkpoint, on any number of ranks; start it if it has none."""
    checkpoint_every: int = 0
    """Write a checkpoint every this many steps, besides the one after each epoch."""
    keep: int = 2
    """Keep this many of the newest checkpoints."""
    keep_every: int = 0
    """Besides, keep for good the first checkpoint at or after each multiple of this many steps."""
    checkpoints: Path | None = None
    """Folder for the checkpoints of this run alone, on another disk; the run folder gets a link to it."""
    checkpoint_parts: int = 0
    """Ranks that write a checkpoint together, a part each, in a folder that they share; at most all ranks. By default
    rank 0 alone, and from 4 GiB of state on a rank for each 2 GiB."""
    patience: int | None = None
    """Stop when validation (see --monitor) has not improved for this many epochs."""
    monitor: str | None = None
    """Metric of validation that chooses the best model: NAME, or NAME:min or NAME:max for metrics of your own. By
    default accuracy, the mean IoU of maps, or the loss of models that you bring."""
    seed: int = 0
    """Seed of weights, shuffling, dropout and augmentation."""
    deterministic: bool = False
    """Use only operations that give the same bits in every run; slower on GPUs."""
    threads: int | None = None
    """TensorFlow's threads in each rank; by default the ranks of a node share its cores."""
    histograms: bool = True
    """Write weight histograms for TensorBoard after every epoch."""
    pictures: int = 0
    """Held-out samples whose predictions TensorBoard shows after every epoch, such as 6. All ranks wait while rank 0
    draws them."""
    profile: tuple[int, int] | None = None
    """First and last step to profile for TensorBoard, on rank 0, counted from this start: --profile 20 30."""
    track: tuple[Literal["mlflow", "wandb", "mlperf"], ...] = ()
    """Send options and metrics to trackers, besides TensorBoard's files: mlflow, wandb (Weights & Biases), or both, in
    the run folder unless the environment names a server; mlperf: write the log of MLPerf HPC's DeepCAM (climate)."""
    hang_after: float | None = None
    """Seconds without a movement on any rank after which a step is a hang; by default 20 times the median step, and at
    least 60. Compiling, checkpoints and the end of an epoch may take longer: see docs/hangs.md."""
    hang: Literal["end", "dump", "off"] = "end"
    """After the report of a hang: end the job, or go on (dump). off: do not look for hangs."""
    peak_tflops: float | None = None
    """TFLOP/s that one GPU can reach in this precision, to print the share of it that the run reaches; 0.5 is 500
    GFLOP/s."""


@dataclasses.dataclass(frozen=True)
class CommunicationOptions:
    """What the ranks send each other."""

    GROUP = "communication"

    reduction: Literal["average", "adasum"] = "average"
    """How ranks combine gradients; adasum (Maleki et al. 2021) needs --lr-scaling none, MPI, and 2, 4, 8, ... ranks."""
    wire_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type in which gradients travel between ranks."""
    bucket_mib: float = 32.0
    """MiB of gradients in one grouped all-reduce."""
    sync_batch_norm: bool = False
    """Batch normalisation over the samples of all ranks in a step; useful when each rank has few samples."""
    check_every: int = 500
    """Check that the replicas are equal every this many steps; 0 checks at the end only."""


@dataclasses.dataclass(frozen=True)
class Options(
    CommunicationOptions,
    RunOptions,
    TransferOptions,
    RecipeOptions,
    ScheduleOptions,
    ReadOptions,
    HeldOutOptions,
    DataOptions,
):
    """Options of every trainer."""

    # The groups of --help and of the reference pages, in order; each class of options names its own.
    GROUPS = (
        "benchmark",
        "data",
        "network",
        "recipe",
        "loss",
        "run",
        "field",
        "image",
        "transfer learning",
        "reading",
        "communication",
    )
    # The group of what a trainer's own class adds.
    GROUP = "network"


def check(options: Options) -> None:
    """Check the options for impossible values and combinations.

    Raises:
        UserError: names the first one found.
    """
    options.check()
    _check_held_out(options)
    options.check_transfer()
    if options.init:
        _check_network(options)
    if options.monitor is not None:
        parse(options.monitor)
    if options.resume and options.run is None:
        raise UserError("--resume needs --run: name the folder of the run to continue")
    for option in ("epochs", "batch_size", "lr", "base_batch", "bucket_mib", "decay_power"):
        if not 0 < getattr(options, option) < math.inf:
            raise UserError(f"--{option.replace('_', '-')} is {getattr(options, option)}; it must be above 0")
    for option in ("keep", "patience", "threads", "read_threads", "read_ahead", "shuffle_block", "shuffle_window"):
        value = getattr(options, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} is {value}; it must be at least 1")
    if options.reduction == "adasum" and options.lr_scaling != "none":
        raise UserError("--reduction adasum chooses the length of the common step itself: add --lr-scaling none")
    if options.reduction == "adasum" and options.wire_dtype != "float32":
        raise UserError(f"--reduction adasum sends gradients as they are: leave out --wire-dtype {options.wire_dtype}")
    if options.decay == "step" and not all(0 < share < 1 for share in options.decay_at):
        raise UserError(f"--decay-at {' '.join(map(str, options.decay_at))}: give shares of training between 0 and 1")
    for option, decay in (("decay_at", "step"), ("decay_power", "poly")):
        if options.decay != decay and getattr(options, option) != getattr(Options, option):
            raise UserError(f"--{option.replace('_', '-')} is for --decay {decay}; give both or leave it out")
    if options.peak_tflops is not None and not 0 < options.peak_tflops < math.inf:
        raise UserError(f"--peak-tflops is {options.peak_tflops}; it must be above 0")
    if options.hang_after is not None and not 1 <= options.hang_after < math.inf:
        raise UserError(f"--hang-after is {options.hang_after}; it must be at least 1, in seconds")
    if options.profile and not 1 <= options.profile[0] <= options.profile[1]:
        raise UserError(f"--profile {' '.join(map(str, options.profile))}: give the first and the last step, from 1")
    for option in ("warmup_epochs", "checkpoint_every", "keep_every", "checkpoint_parts", "check_every", "pictures"):
        if not 0 <= getattr(options, option) < math.inf:
            raise UserError(f"--{option.replace('_', '-')} is {getattr(options, option)}; it must be 0 or more")


def _check_held_out(options: Options) -> None:
    """Refuse names of held-out data sets that nothing says where or beside what they are."""
    given = [f"--test-{name.replace('_', '-')}" for name in options.held_out_names()]
    if given and not options.inputs:
        raise UserError(f"{given[0]} is for data sets that --inputs names; give both or leave it out")
    if given and not (options.test_data or options.test_inputs):
        raise UserError(f"{given[0]} needs --test-inputs, or --test-data with other files; give one of them")


def _check_network(options: Options) -> None:
    """Refuse with --init the options of the trainer's own class, which describe a new network."""
    own = set(vars(type(options)).get("__annotations__", ())) - set(Options.__dataclass_fields__) - {"model"}
    for field in dataclasses.fields(options):
        if field.name in own and getattr(options, field.name) != field.default:
            name = field.name.replace("_", "-")
            raise UserError(f"--{name} is for a new network, and --init brings its own: leave one of the two out")
