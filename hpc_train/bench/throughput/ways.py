"""The ways in which the benchmark measures one training."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import tensorflow as tf

from hpc_train import parallel
from hpc_train.bench.throughput.bare import Bare
from hpc_train.bench.throughput.fit import Fit, LocalOptimizer, Reading, Resident, Timed
from hpc_train.bench.throughput.options import UNWATCHED
from hpc_train.models.fused import fuse_batch_norm
from hpc_train.optim import recipe
from hpc_train.parallel.sync.slow import SlowRanks
from hpc_train.training.assembly import Assembly, make, network
from hpc_train.training.callbacks import Position
from hpc_train.training.checkpoint import Progress
from hpc_train.training.input_wait import InputWait
from hpc_train.training.task import Task
from hpc_train.watch.callback import Phases


def make_ways(names: Sequence[str], options, task: Task, assembly: Assembly, world) -> dict[str, Callable[..., Timed]]:
    """Make a function for each way. Collective.

    The ways with Horovod share a model. The ways without it share another one: the same network, compiled in the same
    way, but its gradients stay on their rank.

    Args:
        names: of `options.WAYS`.
        options: of the trainer.
        task: of the trainer.
        assembly: data, plan and compiled network.
        world: ranks.

    Returns:
        Functions by name, called with the number of uncounted and of counted steps of a round.
    """
    epochs = iter(range(10**9))

    def read(steps: int) -> tf.data.Dataset:
        return assembly.feed.batches(assembly.plan, next(epochs), 0, steps)

    def handed(steps: int) -> Generator | None:
        return assembly.feed.handed(assembly.plan, next(epochs), 0, steps)

    def position() -> Position:
        return Position(Progress(), assembly, world)

    # The callbacks of a training run that act in a step, except the check whether to stop, made once a second.
    every_step = [*parallel.callbacks(options.check_every, check_samples=False, say_slow=False), position()]
    ways: dict[str, Callable[..., Timed]] = {}
    if "fit" in names:
        ways["fit"] = Fit(assembly.model, read, [InputWait(), *every_step], handed)
    if UNWATCHED in names:
        rest = [each for each in every_step if not isinstance(each, (Phases, SlowRanks))]
        ways[UNWATCHED] = Fit(assembly.model, read, [InputWait(), *rest], handed)
    alone = _alone(options, task, assembly) if {"fit alone", "device alone"} & set(names) else None
    if "fit alone" in names:
        ways["fit alone"] = Fit(alone, read, [InputWait(), position()], handed)
    if {"device", "device alone"} & set(names):
        batch = next(iter(read(1)))

        def same(steps: int) -> tf.data.Dataset:
            return tf.data.Dataset.from_tensors(batch).repeat(steps)

        if "device" in names:
            ways["device"] = Fit(assembly.model, same, [Resident(batch), *every_step])
        if "device alone" in names:
            ways["device alone"] = Fit(alone, same, [Resident(batch), position()])
    if "input" in names:
        ways["input"] = Reading(lambda steps: handed(steps) or read(steps), _read_ahead(assembly))
    for name in (name for name in ("bare", "bare alone") if name in names):
        loss = task.compiled_with(options, assembly.feed.training)["loss"]
        model = network(options, task, assembly.feed.training)
        fuse_batch_norm(model)
        ways[name] = Bare(model, loss, recipe.optimizer(options, options.lr), read(100), name == "bare")
    return {name: ways[name] for name in names}


def _read_ahead(assembly: Assembly) -> int:
    """The largest number of batches on their way from files to the device; 0 with --data synthetic."""
    inputs = getattr(assembly.feed, "inputs", None)
    if not inputs:
        return 0
    reading = inputs[0].reading(assembly.plan.batch_size)
    return (reading.groups + 2) * reading.together + 2


def _alone(options, task: Task, assembly: Assembly):
    batch = assembly.feed.batches(assembly.plan, 0, 0, 1).element_spec
    own = replace(options, sync_batch_norm=False)
    return make(own, task, assembly.feed.training, lambda own: batch, assembly.plan.global_batch, LocalOptimizer)[0]
