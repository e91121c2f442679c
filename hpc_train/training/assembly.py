"""What a training or a benchmark begins with, made from its options: data, plan and compiled network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_train.errors import UserError
from hpc_train.training import transfer
from hpc_train.training.options import Options
from hpc_train.training.task import Task, loss_names

if TYPE_CHECKING:
    from hpc_train.data.plan import TrainPlan, ValidationPlan
    from hpc_train.optim.schedule import Schedule
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
        model: compiled, with a built optimizer.
        schedule: of the learning rate.
        notes: lines to print once, when training begins.
        facts: the order of an epoch and `Task.facts`: a resumed run must have the same.
    """

    feed: "Feed | Synthetic"
    plan: "TrainPlan"
    validation: "ValidationPlan"
    model: object
    schedule: "Schedule"
    notes: list[str]
    facts: dict


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
    from hpc_train.training.feed import Feed, open_feed, staged

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
        model = network(options, task, training)
        if isinstance(feed, Feed) and not training.targets and type(model).train_step is not keras.Model.train_step:
            feed.give_inputs_alone()
        judged = task.compiled_with(options, training)
        notes = task.notes(training) if task.notes else []
        facts = {"order": order.as_dict(), "loss": loss_names(judged["loss"])}
        facts |= task.facts(training) if task.facts else {}
    schedule = _schedule(options, plan.global_batch)
    compile_model(model, options, judged, parallel.DistributedOptimizer)
    return Assembly(feed, plan, validation, model, schedule, notes, facts)


def network(options: Options, task: Task, catalogue):
    """The uncompiled network for the samples of `catalogue`: the task's, or the one of --init.

    Raises:
        UserError: the options and the data do not fit the network.
    """
    model = transfer.build(options, catalogue) if options.init else task.model(catalogue)
    if task.fits:
        task.fits(model, catalogue)
    return model


def compile_model(model, options: Options, judged: dict, wrapper: type) -> None:
    """Compile the model and build its optimizer.

    Args:
        model: uncompiled.
        options: of the trainer.
        judged: `loss` and `metrics`, from `Task.compiled_with`.
        wrapper: `parallel.DistributedOptimizer`, or a class with the same arguments.

    Raises:
        UserError: on every rank, where --sync-batch-norm finds no batch normalisation to train.
    """
    from hpc_train import parallel
    from hpc_train.optim import recipe
    from hpc_train.optim.accumulate import accumulate

    if options.sync_batch_norm and not parallel.synchronise_batch_norm(model):
        raise UserError(
            "--sync-batch-norm: no batch normalisation of this network is trained; leave the option out"
        ).agreed()
    inner = recipe.optimizer(options, options.lr, options.multipliers(options.lr))
    wire_dtype = None if options.wire_dtype == "float32" else options.wire_dtype
    model.compile(
        wrapper(inner, wire_dtype, options.bucket_mib, options.lag, options.reduction),
        **judged,
        auto_scale_loss=False,
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    if options.accumulate > 1:
        accumulate(model, options.accumulate)


def _schedule(options: Options, global_batch: int) -> "Schedule":
    from hpc_train.optim.schedule import Schedule, scale

    peak = options.lr * scale(options.lr_scaling, global_batch, options.base_batch)
    one_rank = options.lr * scale(options.lr_scaling, options.batch_size * options.accumulate, options.base_batch)
    return Schedule(
        start=min(options.lr, one_rank),
        peak=peak,
        epochs=options.epochs,
        warmup_epochs=options.warmup_epochs,
        decay=options.decay,
        milestones=options.decay_at,
        power=options.decay_power,
    )


def _recorded_order(options: Options) -> dict | None:
    from hpc_train.training.run_folder import Run

    earlier = Run(options.run) if options.resume and options.run else None
    return earlier.record()["facts"].get("order") if earlier and earlier.record_file.is_file() else None
