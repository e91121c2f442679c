"""What does the suite cost? horovodrun -np 2 python -m hpc_train.bench.throughput --data shards/mnist

Four ways to train the same model, interleaved in the same processes, round after round:

    fit           `fit` through the suite: shards, reader, averaged gradients, every callback that acts in each step
                  of a training run (not its TensorBoard and checkpoints, which act after an epoch, and the ranks'
                  question whether to stop, once a second)
    bare          a hand-written loop: arrays in memory, one grouped all-reduce, nothing else
    fit alone     `fit` and shards without Horovod: every rank trains for itself, all at once (the ceiling of fit)
    bare alone    the loop without its all-reduce (the ceiling of all)

Throughput is over all ranks, by the slowest rank's clock; a round's first step is not counted.
"""

import os
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hpc_train import options
from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files import write_json


@dataclass(frozen=True)
class Throughput:
    """Compare fit through the suite with a bare Horovod loop and with ranks that train alone."""

    data: Path
    """Folder of HDF5 shards."""
    model: Literal["fc", "cnn", "deep", "dropout", "batchnorm", "residual"] = "deep"
    """Network of the MNIST family."""
    batch_size: int = 64
    """Samples a step on each rank."""
    steps: int = 60
    """Counted steps a round."""
    rounds: int = 7
    """Rounds, each with every way once, in an order that rotates; an uncounted one goes first."""
    threads: int | None = None
    """TensorFlow's threads a rank; by default the ranks of a node share its cores."""
    output: Path | None = None
    """JSON file for the figures, with the nodes, versions and command they come from."""


def run(chosen: Throughput) -> None:
    """Measure; every rank calls it."""
    if min(chosen.steps, chosen.rounds, chosen.batch_size) < 1:
        raise UserError("--steps, --rounds and --batch-size must be at least 1")
    if chosen.output and not chosen.output.parent.is_dir():
        raise UserError(f"--output {chosen.output}: the folder {chosen.output.parent} does not exist; make it first")
    from hpc_train import parallel

    world = parallel.init(seed=0, threads=chosen.threads)
    import numpy as np

    from hpc_train.bench import hardware
    from hpc_train.data.catalogue import Catalogue

    with parallel.agree(world):
        catalogue = Catalogue.open(chosen.data, "train")
        ways = _ways(chosen, world, catalogue)
    names = list(ways)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(chosen.rounds + 1):
        for name in np.roll(names, number):
            seconds = _slowest(ways[name](chosen.steps + 1))
            if number:
                rates[name].append(world.size * chosen.batch_size * chosen.steps / seconds)
    nodes = hardware.nodes()
    if world.is_root:
        ratios = {f"fit / {other}": np.divide(rates["fit"], rates[other]).tolist() for other in names if other != "fit"}
        _report(chosen, nodes, rates, ratios)
        if chosen.output:
            _write(chosen, nodes, catalogue, rates, ratios)


def _slowest(seconds: float) -> float:
    import horovod.tensorflow as hvd
    import tensorflow as tf

    # Also the barrier that lets all ranks begin the next measurement together.
    return float(hvd.allreduce(tf.constant(seconds, tf.float64), op=hvd.Max, name="hpc_train.bench.slowest"))


def _ways(chosen: Throughput, world, catalogue) -> dict:
    import keras

    from hpc_train import parallel
    from hpc_train.callbacks import Position
    from hpc_train.checkpoint import Progress
    from hpc_train.data.plan import TrainPlan
    from hpc_train.data.reader import Reader
    from hpc_train.input_wait import InputWait
    from hpc_train.models import mnist
    from hpc_train.optim.schedule import Schedule

    reader = Reader(catalogue)
    plan = TrainPlan(catalogue.samples, chosen.batch_size, world.size, seed=0)

    def model():
        return mnist.build(chosen.model, catalogue.input_shape, catalogue.input_dtype.name, catalogue.classes)

    def sgd():
        return keras.optimizers.SGD(0.001, momentum=0.9)

    schedule = Schedule(0.001, 0.001, epochs=10**6, decay="none")
    callbacks = [*parallel.callbacks(), InputWait(), Position(Progress(), plan, schedule, world)]
    return {
        "fit": _fit(model(), parallel.DistributedOptimizer(sgd()), reader, plan, world, callbacks),
        "bare": _loop(model(), sgd(), reader, chosen.batch_size, average=True),
        "fit alone": _fit(model(), sgd(), reader, plan, world, []),
        "bare alone": _loop(model(), sgd(), reader, chosen.batch_size, average=False),
    }


def _fit(model, optimizer, reader, plan, world, callbacks):
    import keras

    from hpc_train.data.pipeline import Input

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.last = time.perf_counter()
            if batch == 0:
                self.first = self.last

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    clock = Clock()
    begun = [0]

    def measure(steps: int) -> float:
        data = Input(reader).training(plan, world.rank, begun[0], 0, steps)
        begun[0] += 1
        model.fit(data, steps_per_epoch=steps, callbacks=[*callbacks, clock], shuffle=False, verbose=0)
        return clock.last - clock.first

    return measure


def _loop(model, optimizer, reader, batch_size: int, average: bool):
    import horovod.tensorflow as hvd
    import keras
    import numpy as np
    import tensorflow as tf

    held = min(reader.catalogue.samples, 100 * batch_size)
    data = tf.data.Dataset.from_tensor_slices(reader.read(np.arange(held)))
    batches = iter(data.repeat().batch(batch_size).prefetch(4))
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = loss_of(targets, model(inputs, training=True))
        grads = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        if average:
            grads = hvd.grouped_allreduce(grads, op=hvd.Average, name="hpc_train.bench.bare")
        optimizer.apply(grads, model.trainable_variables)
        return loss

    def measure(steps: int) -> float:
        step(*next(batches)).numpy()
        first = time.perf_counter()
        for _ in range(steps - 1):
            loss = step(*next(batches))
        loss.numpy()
        return time.perf_counter() - first

    return measure


def _report(chosen: Throughput, nodes: list[dict], rates: dict, ratios: dict) -> None:
    import numpy as np

    from hpc_train.bench.hardware import shared

    ranks = sum(node["ranks"] for node in nodes)
    say(f"{chosen.model}, batch {chosen.batch_size} a rank, {ranks} ranks, {chosen.rounds} rounds")
    say(f"{'':12}{'samples/s: median':>18}{'min':>8}{'max':>8}")
    for name, values in rates.items():
        say(f"{name:12}{np.median(values):18.0f}{min(values):8.0f}{max(values):8.0f}")
    for name, pairs in ratios.items():
        say(f"{name:16} median of the rounds {np.median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})")
    if shared(nodes):
        say("ranks share cores or GPUs: these figures say nothing about scaling")


def _write(chosen: Throughput, nodes: list[dict], catalogue, rates: dict, ratios: dict) -> None:
    import tensorflow as tf

    from hpc_train.run import versions

    figures = {
        "benchmark": "throughput",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.orig_argv),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "options": asdict(chosen),
        "data": catalogue.identity,
        "ranks": sum(node["ranks"] for node in nodes),
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "nodes": nodes,
        "versions": versions(),
        "rates": rates,
        "ratios": ratios,
    }
    try:
        write_json(chosen.output, figures)
    except OSError as error:
        raise UserError(f"cannot write --output {chosen.output}: {error.strerror}") from error


if __name__ == "__main__":
    options.main(Throughput, run, "python -m hpc_train.bench.throughput")
