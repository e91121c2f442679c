"""How much of the all-reduce runs beside the computation? horovodrun -np 2 hpc-train bench overlap

The command trains a stack of dense layers with gradient lag 0 and 1. Horovod's timeline shows when rank 0 was sending
gradients. TensorFlow's clock in the step shows when rank 0 was computing them: in the forward and backward pass. The
update of the weights comes after both, and does not count. On CPUs, sending takes time of the cores that compute.

With lag 0, the gradients of the last layers travel during the backward pass, and those of the first layers after it.
With lag 1, all gradients that travel are ready when the step begins.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.timeline.intervals import collectives, length, within

_NAME = "overlap_lag{}"
_UNCOUNTED = 3


@dataclass(frozen=True)
class OverlapBench:
    """Measure what gradient lag hides, from Horovod's own timeline. Start it with two ranks or more."""

    layers: int = 8
    """Number of dense layers."""
    width: int = 1024
    """Width of the layers: a layer has width x width weights, in float32."""
    batch_size: int = 512
    """Samples in a step on each rank. More samples are more computation beside the same gradients."""
    steps: int = 20
    """Steps to measure, after a few that do not count."""
    bucket_mib: float = 8.0
    """MiB of gradients in one grouped all-reduce."""
    threads: int | None = None
    """TensorFlow's threads in each rank; by default the ranks of a node share its cores."""
    keep: Path | None = None
    """File that keeps the timeline, for Perfetto or chrome://tracing."""


def run(options: OverlapBench) -> None:
    """Measure and print. Collective.

    Raises:
        UserError: impossible options, or one rank only.
    """
    for option in ("layers", "width", "batch_size", "steps", "bucket_mib"):
        if getattr(options, option) <= 0:
            raise UserError(f"--{option.replace('_', '-')} is {getattr(options, option)}; it must be above 0")
    if options.keep and not options.keep.absolute().parent.is_dir():
        raise UserError(f"--keep {options.keep}: its folder does not exist; make it first")
    with tempfile.TemporaryDirectory() as temporary:
        path = options.keep or Path(temporary) / "timeline.json"
        # Horovod reads this variable on rank 0 when it starts.
        os.environ["HOROVOD_TIMELINE"] = str(path)
        _run(options, path)


def _run(options: OverlapBench, path: Path) -> None:
    from hpc_train import parallel

    world = parallel.init(seed=0, threads=options.threads)
    if world.size == 1:
        raise UserError("one rank alone sends nothing: start it with horovodrun -np 2 or more").agreed()
    import horovod.tensorflow as hvd

    clocks = [_measure(options, lag, world.rank) for lag in (0, 1)]
    # Closes the timeline.
    hvd.shutdown()
    if world.is_root:
        mib = options.layers * options.width * (options.width + 1) * 4 / 2**20
        say(f"{world.size} ranks, {options.layers} layers of {options.width}, {mib:.0f} MiB of gradients a step")
        say("lag      step   computing   all-reduce   of it beside the computation")
        for lag, clock in enumerate(clocks):
            say(_line(lag, _figures(collectives(path, _NAME.format(lag)), clock)))


def _line(lag: int, times: dict[str, float]) -> str:
    step, computing, sending = (f"{1e3 * times[name]:.0f} ms" for name in ("step", "computing", "all-reduce"))
    return f"{lag:3} {step:>9} {computing:>11} {sending:>12} {times['hidden']:>13.0%}"


def _figures(sending: list, clock: list[tuple[float, float, float]]) -> dict[str, float]:
    """Medians over the steps, in s: step, computing, all-reduce. hidden: the share of all-reduce time beside computing.

    Args:
        sending: (begin, end) of what is sent, in s.
        clock: as `_measure` returns it.
    """
    steps, computing = [(begin, end) for begin, _, end in clock], [(begin, there) for begin, there, _ in clock]
    sent = length(within(sending, steps))
    if not sent:
        raise UserError(
            "Horovod's timeline has no all-reduce within the steps. Was the clock of the machine changed? Run it again"
        )
    return {
        "step": median(length([step]) for step in steps),
        "computing": median(length([part]) for part in computing),
        "all-reduce": median(length(within(sending, [step])) for step in steps),
        "hidden": length(within(sending, computing)) / sent,
    }


def _measure(options: OverlapBench, lag: int, rank: int) -> list[tuple[float, float, float]]:
    """When each step begins, when its gradients are ready and when it ends, in s since 1970. Collective."""
    import keras
    import numpy as np
    import tensorflow as tf

    from hpc_train import parallel

    optimizer = _timed(lag, options.bucket_mib)
    hidden = [keras.layers.Dense(options.width, activation="relu") for _ in range(options.layers)]
    model = keras.Sequential([keras.Input((options.width,)), *hidden])
    model.compile(optimizer, "mse", auto_scale_loss=False, jit_compile=False)
    inputs = np.random.default_rng(rank).normal(size=(options.batch_size, options.width)).astype("float32")
    clock = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.begin = time.time()

        def on_train_batch_end(self, batch, logs=None):
            clock.append((self.begin, float(optimizer.computed), time.time()))

    # The first steps trace the function, and bring the ranks to the same pace.
    steps = _UNCOUNTED + options.steps
    data = tf.data.Dataset.from_tensors((inputs, inputs)).repeat(steps)
    model.fit(data, callbacks=[*parallel.callbacks(check_every=0, check_samples=False), Clock()], verbose=0)
    return clock[_UNCOUNTED:]


def _timed(lag: int, bucket_mib: float):
    """SGD over the ranks that notes when the last gradient of a step is ready: `computed`, in s since 1970."""
    import keras
    import tensorflow as tf

    from hpc_train.parallel import DistributedOptimizer

    class Timed(DistributedOptimizer):
        def apply(self, grads, trainable_variables=None):
            with tf.control_dependencies(grads):
                self.computed.assign(tf.timestamp())
            super().apply(grads, trainable_variables)

    optimizer = Timed(keras.optimizers.SGD(1e-3, momentum=0.9), bucket_mib=bucket_mib, lag=lag, name=_NAME.format(lag))
    optimizer.computed = tf.Variable(0.0, dtype=tf.float64, trainable=False)
    return optimizer
