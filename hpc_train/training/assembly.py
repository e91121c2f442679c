"""What a training or a benchmark begins with, made from its options: data, plan and compiled network."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpc_train.errors import UserError
from hpc_train.training import transfer
from hpc_train.training.monitor import LOSS, Monitor, choose
from hpc_train.training.options import Options
from hpc_train.training.own_model import rates as own_rates
from hpc_train.training.own_model.rates import Rates
from hpc_train.training.own_model.script import explained
from hpc_train.training.task import Task, loss_names

if TYPE_CHECKING:
    from hpc_train.data.plan import TrainPlan, ValidationPlan
    from hpc_train.parallel.world import World
    from hpc_train.training.feed import Feed
    from hpc_train.training.synthetic import Synthetic


@dataclass(frozen=True)
class Assembly:
    """What a training has before its first step, without its run folder.

    Args:
        feed: the data that the options name.
        plan: the training samples of each rank at each step.
        validation: the same for the held-out samples.
        model: compiled, with built optimizers.
        rates: the optimizers and their learning rates.
        reported: what validation reports, by name, each with its metric or None; None where the model cannot be
            evaluated.
        monitor: what chooses the best model; None for nothing.
        notes: lines to print once, when training begins.
        facts: the order of an epoch and `Task.facts`: a resumed run must have the same.
    """

    feed: "Feed | Synthetic"
    plan: "TrainPlan"
    validation: "ValidationPlan"
    model: Any
    rates: Rates
    reported: dict[str, Any] | None
    monitor: Monitor | None
    notes: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)


def assemble(options: Options, task: Task, world: "World") -> Assembly:
    """Open the data, plan the epochs, build the network and compile it. Collective; after `parallel.init`.

    Raises:
        UserError: on every rank, for whatever the user can fix.
    """
    import keras

    from hpc_train import parallel
    from hpc_train.data.plan import TrainPlan, ValidationPlan
    from hpc_train.parallel.mpi import on_root
    from hpc_train.parallel.wire import check_adasum
    from hpc_train.training.feed import open_feed, staged

    if options.precision != "float32":
        keras.config.set_dtype_policy(f"mixed_{options.precision}")
    local = staged(options)
    # Collective calls in here fail on every rank or on none, so the ranks stay together.
    with parallel.agree(world):
        if options.reduction == "adasum":
            check_adasum(world)
        feed = open_feed(local, world)
        training = feed.training
        order = feed.order(on_root(feed.comm, lambda: _recorded_order(options)))
        step_size = options.batch_size * options.accumulate
        plan = TrainPlan(training.samples, step_size, world.size, options.seed, order)
        validation = ValidationPlan(feed.held_out.samples, options.batch_size, world.size)

        def batch(own: bool):
            if own and not training.targets:
                feed.give_inputs_alone()
            return feed.batches(plan, 0, 0, 1).element_spec

        model, rates, notes = make(options, task, training, batch, plan.global_batch, parallel.DistributedOptimizer)
        reported, why = _reported(model, feed.validation(validation).element_spec, training.classes)
        monitor, unmonitored = _monitor(options, task, reported)
        notes += [*why, *unmonitored, *(task.notes(training) if task.notes else [])]
        facts = {"order": order.as_dict(), "loss": loss_names(model.loss)}
        facts |= task.facts(training) if task.facts else {}
        if monitor:
            facts["monitor"] = str(monitor)
    return Assembly(feed, plan, validation, model, rates, reported, monitor, notes, facts)


def make(
    options: Options, task: Task, catalogue, batch: Callable, global_batch: int, wrapper: type
) -> tuple[Any, Rates, list[str]]:
    """The compiled model with built optimizers.

    Args:
        options: of the trainer.
        task: what is trained.
        catalogue: of the training data.
        batch: gives shapes and dtypes of a training batch, as `tf.data` has them, when it is told whether the model has
            a training step of its own.
        global_batch: samples in a step over all ranks.
        wrapper: `parallel.DistributedOptimizer`, or a class with the same arguments.

    Returns:
        The model, its optimizers and their rates, and lines to print.

    Raises:
        UserError: options, data and network do not fit each other.
    """
    from hpc_train.optim import recipe
    from hpc_train.optim.accumulate import accumulate
    from hpc_train.training.own_model import rehearsal

    model = network(options, task, catalogue)
    own, compiled = rehearsal.has_own_step(model, "train_step"), model.compiled
    if own:
        own_rates.check_own_step(options)
    shapes = batch(own)
    _normalise(model, options)
    if not (own or model.built):
        # Called once, it has all its variables.
        rehearsal.gives_logits(model, shapes)
    if compiled:
        rates = _adopt(model, options, task, global_batch, wrapper)
    else:
        judged = _judged(options, task, catalogue, own, lambda name: rehearsal.gives_logits(model, shapes, name))
        inner = recipe.optimizer(options, options.lr, options.multipliers(options.lr))
        optimizer = _distributed(inner, options, wrapper)
        model.compile(optimizer, **judged, auto_scale_loss=False, jit_compile=False)
        rates = own_rates.of_options(model, options, global_batch)
    notes = rehearsal.training(model, shapes) if own else []
    if own and compiled:
        rates = rates.used()
    if model.optimizer is not None:
        model.optimizer.build(model.trainable_variables)
    if options.accumulate > 1:
        accumulate(model, options.accumulate)
    return model, rates, [*([own_rates.describe(rates, options)] if compiled else []), *notes]


def _judged(options: Options, task: Task, catalogue, own: bool, logits) -> dict:
    """Loss and metrics of a model that is not compiled."""
    if own and not task.loss:
        return {"loss": None, "metrics": [] if callable(task.metrics) else list(task.metrics or ())}
    return task.compiled_with(options, catalogue, logits)


def _adopt(model, options: Options, task: Task, global_batch: int, wrapper: type) -> Rates:
    """Let the optimizers of a compiled model average over the ranks."""
    if task.loss or task.metrics:
        option = "--loss" if task.loss else "--metrics"
        raise UserError(f"{option}: the model is compiled already, with its own loss and metrics; leave the option out")
    # A step is a step: schedules and checkpoints count them.
    model.steps_per_execution = 1
    rates = own_rates.of_model(model, options, global_batch, lambda one: _distributed(one, options, wrapper))
    if not rates.optimizers:
        raise UserError(f"{type(model).__name__} is compiled without an optimizer: give compile() one")
    return rates


def network(options: Options, task: Task, catalogue):
    """The network for the samples of `catalogue`: the task's, or the one of --init.

    Raises:
        UserError: the options and the data do not fit the network.
    """
    with explained(f"the network of {task.name}"):
        model = (task.transfer or transfer.build)(options, catalogue) if options.init else task.model(catalogue)
    if task.fits:
        task.fits(model, catalogue)
    return model


def _distributed(optimizer, options: Options, wrapper: type):
    wire_dtype = None if options.wire_dtype == "float32" else options.wire_dtype
    return wrapper(optimizer, wire_dtype, options.bucket_mib, options.lag, options.reduction)


def _normalise(model, options: Options) -> None:
    """Choose how the batch normalisations of a model compute."""
    from hpc_train import parallel
    from hpc_train.models.fused import fuse_batch_norm

    if not options.sync_batch_norm:
        fuse_batch_norm(model)
    elif not parallel.synchronise_batch_norm(model):
        raise UserError(
            "--sync-batch-norm: no batch normalisation of this network is trained; leave the option out"
        ).agreed()


def _reported(model, batch, classes: int) -> tuple[dict[str, Any] | None, list[str]]:
    """What validation reports; None, and why, for a model with a training step of its own that cannot be evaluated."""
    from hpc_train.training.own_model import rehearsal

    try:
        return rehearsal.evaluation(model, batch, classes), []
    except UserError as error:
        steps = (rehearsal.has_own_step(model, step) for step in ("train_step", "test_step"))
        if tuple(steps) != (True, False):
            raise
        return None, [f"no validation: {error}; give {type(model).__name__} a test_step"]


def _monitor(options: Options, task: Task, reported: dict[str, Any] | None) -> tuple[Monitor | None, list[str]]:
    """What chooses the best model; None, and a line, where nothing was asked for and there is no loss."""
    if reported is None:
        if options.monitor or options.patience:
            option = "--monitor" if options.monitor else "--patience"
            raise UserError(f"{option}: this model is not evaluated, as it has no test_step; give it one")
        return None, ["no best model is kept: nothing is evaluated"]
    default = "accuracy" if "accuracy" in reported and not (task.loss or task.metrics) else LOSS
    name = options.monitor or task.monitor or default
    if name != LOSS or options.monitor or LOSS in reported:
        return choose(name, reported), []
    there = ", ".join(reported)
    if options.patience:
        raise UserError(f"--patience needs --monitor: validation reports no loss, only {there}")
    return None, [f"no best model is kept: choose one of {there} with --monitor NAME:min or NAME:max"]


def _recorded_order(options: Options) -> dict | None:
    from hpc_train.training.run_folder import Run

    earlier = Run(options.run) if options.resume and options.run else None
    return earlier.record()["facts"].get("order") if earlier and earlier.record_file.is_file() else None
