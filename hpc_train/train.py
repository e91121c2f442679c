"""What the trainers share: one path from options and a model to a finished run folder."""

import gc
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_train.console import say
from hpc_train.data.options import DataOptions, ReadOptions
from hpc_train.errors import UserError


@dataclass(frozen=True)
class Options(ReadOptions, DataOptions):
    """Options of every trainer."""

    test_data: Path | None = None
    """Held-out data, where they are not the split validation or test of --data."""
    run: Path | None = None
    """Run folder; a new one under runs/ if not given."""
    resume: bool = False
    """Go on with the run in --run from its newest checkpoint, on any number of ranks; begin it if there is none."""
    epochs: int = 12
    """Passes over the data: N ranks take 1/N of the steps of one."""
    batch_size: int = 64
    """Samples a step on each rank; the global batch is this times the number of ranks."""
    lr: float = 0.01
    """Learning rate at the base batch."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the rate grows with global batch / base batch."""
    base_batch: int = 64
    """Global batch for which --lr was chosen."""
    warmup_epochs: float = 1.0
    """Epochs in which the rate rises from --lr to its scaled value."""
    decay: Literal["cosine", "step", "none"] = "cosine"
    """How the rate falls after warm-up."""
    patience: int | None = None
    """Stop when validation accuracy has not improved for so many epochs; all ranks decide together."""
    seed: int = 0
    """Seed of weights, shuffling, dropout and augmentation."""
    checkpoint_every: int = 0
    """Write a checkpoint every so many steps, besides the one after each epoch."""
    check_every: int = 500
    """Check that the replicas are equal every so many steps; 0 checks at the end only."""
    wire_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type in which gradients travel between ranks."""
    bucket_mib: float = 32.0
    """MiB of gradients in one grouped all-reduce."""
    threads: int | None = None
    """TensorFlow's threads a rank; by default the ranks of a node share its cores."""
    deterministic: bool = False
    """Use only operations that give the same bits in every run; slower on GPUs."""
    histograms: bool = True
    """Weight histograms in TensorBoard after every epoch."""
    profile: tuple[int, int] | None = None
    """First and last step to profile for TensorBoard, on rank 0: --profile 20 30."""


def train(options: Options, name: str, build_model) -> None:
    """Train, evaluate and save; every rank calls it, before any TensorFlow operation.

    Args:
        options: the trainer's options.
        name: of the run, for its folder.
        build_model: a function from a `data.catalogue.Catalogue` to an uncompiled Keras model that returns logits.

    SIGUSR1 and SIGTERM, to any rank, stop all of them at one step: rank 0 writes a checkpoint, and the process ends
    with status 75 (`stopping.UNFINISHED`); `--run` and `--resume` go on from there.

    Raises:
        UserError: whatever the user can mend, on every rank.
    """
    _check(options)
    from hpc_train import parallel
    from hpc_train.stopping import UNFINISHED, Requests, Stopped

    requests = Requests()
    world = parallel.init(options.seed, options.threads, options.deterministic)

    import keras
    import tensorflow as tf

    from hpc_train import checkpoint
    from hpc_train.callbacks import Best, Checkpoints, Position, Report
    from hpc_train.data.plan import TrainPlan, ValidationPlan
    from hpc_train.data.survey import on_root
    from hpc_train.feed import Feed, staged
    from hpc_train.input_wait import InputWait
    from hpc_train.optim.schedule import Schedule, scale
    from hpc_train.run import Run

    local = staged(options)
    # What is collective in here fails on every rank or on none, so the ranks stay together.
    with parallel.agree(world):
        feed = Feed(local, world)
        training, held_out = feed.training, feed.held_out
        order = feed.order(on_root(feed.comm, lambda: _recorded_order(options)))
        plan = TrainPlan(training.samples, options.batch_size, world.size, options.seed, order)
        validation = ValidationPlan(held_out.samples, options.batch_size, world.size)
        model = build_model(training)

    factor = scale(options.lr_scaling, plan.global_batch, options.base_batch)
    schedule = Schedule(options.lr, options.lr * factor, options.epochs, options.warmup_epochs, options.decay)
    wire_dtype = None if options.wire_dtype == "float32" else options.wire_dtype
    sgd = keras.optimizers.SGD(options.lr, momentum=0.9)
    model.compile(
        parallel.DistributedOptimizer(sgd, wire_dtype, options.bucket_mib),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        auto_scale_loss=False,
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)

    path = options.run
    with parallel.agree(world):
        if world.is_root and path is None:
            path = Run.new_path(name)
    run = Run(parallel.broadcast_object(path))
    progress = checkpoint.Progress()
    hosts = parallel.gather_objects(socket.gethostname())
    with parallel.agree(world):
        if world.is_root:
            facts = {"trainer": name, "seed": options.seed, "samples": plan.samples, "data": training.identity}
            facts["order"] = plan.order.as_dict()
            newest = checkpoint.newest(run.checkpoints)
            run.start(options, world, facts, options.resume, checkpoint.step_of(newest), hosts)
            if newest:
                progress = checkpoint.load(newest, model)
            run.forget_metrics_after(progress.step)
    progress = parallel.broadcast_object(progress)
    # For a run that only has its last evaluation left; else `fit` begins with it as well.
    parallel.broadcast_variables(model)

    tell = say if world.is_root else _silent
    tell(
        f"{name}: {model.count_params():,} parameters, {plan.samples} samples, {world.size} ranks, "
        f"global batch {plan.global_batch}, rate {schedule.base:g} -> {schedule.peak:g}, run {run.path}"
    )
    for line in feed.description(plan) if world.is_root else ():
        tell(f"  {line}")
    if progress.step:
        tell(f"resuming after step {progress.step}: epoch {progress.epoch + 1}, sample {progress.position}")

    validation_steps = validation.real_steps(world.rank)
    callbacks = parallel.callbacks(options.check_every, validation_steps)
    wait = InputWait()
    callbacks += [wait, Position(progress, plan, schedule, world)]
    best = Best(run, world, progress, "val_accuracy", options.patience)
    callbacks += [best]
    if world.is_root:
        callbacks += [Report(run, world, progress, plan, options.epochs, wait), _tensorboard(options, run)]
    checkpoints = Checkpoints(run, world, progress, options.checkpoint_every, requests)
    callbacks += [checkpoints]

    requests.train()
    try:
        held_out_data = feed.validation(validation)

        def evaluate():
            return parallel.evaluate(model, held_out_data, validation_steps, [checkpoints])

        if not plan.steps(progress.position):
            _end_epoch(model, progress, callbacks, evaluate)
        # Keras counts the same steps in every epoch; a resumed epoch has fewer, so it gets a fit of its own.
        resumed = [progress.epoch + 1] if progress.position else []
        for last_epoch in [*resumed, options.epochs]:
            if progress.epoch < last_epoch <= options.epochs and not best.exhausted(progress.epoch):
                _fit(model, feed, plan, progress, last_epoch, callbacks, held_out_data)
        results = evaluate()
    except Stopped as stopped:
        for callback in callbacks:
            if isinstance(callback, (keras.callbacks.TensorBoard, InputWait)):
                callback.on_train_end()
        go_on = "" if options.resume and options.run else f"; go on with --run {run.path} --resume"
        epoch = min(progress.epoch + 1, options.epochs)
        tell(f"stopped by {stopped} after step {progress.step}, in epoch {epoch} of {options.epochs}{go_on}")
        # The trace holds the pipeline, which complains when it outlives the interpreter.
        stopped.with_traceback(None)
        gc.collect()
        parallel.end_together(world, UNFINISHED)
    except tf.errors.OpError as error:
        raise (feed.error or error) from None

    if world.is_root:
        parallel.save_model(model, run.model)
        last = run.metrics()[-1] if run.metrics() else {}
        waited = f", input wait {last['input_wait']:.1%}" if "input_wait" in last else ""
        tell(
            f"{held_out.split or 'held-out'} accuracy {results['accuracy']:.4f}, loss {results['loss']:.4f} after "
            f"{progress.epoch} epochs, {last.get('samples_per_s', 0):.0f} samples/s on {world.size} ranks{waited}\n"
            f"run folder {run.path}"
        )


def _recorded_order(options: Options) -> dict | None:
    from hpc_train.run import Run

    earlier = Run(options.run) if options.resume else None
    return earlier.record()["facts"].get("order") if earlier and earlier.record_file.is_file() else None


def _fit(model, feed, plan, progress, last_epoch, callbacks, validation_data) -> None:
    steps = plan.steps(progress.position)
    total = steps + (last_epoch - progress.epoch - 1) * plan.steps()
    model.fit(
        feed.batches(plan, progress.epoch, progress.position, total),
        initial_epoch=progress.epoch,
        epochs=last_epoch,
        steps_per_epoch=steps,
        validation_data=validation_data,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )


def _end_epoch(model, progress, callbacks, evaluate) -> None:
    """Validate and end an epoch of which an earlier start has made the last step. Collective."""
    import keras

    from hpc_train.parallel.metrics import ExactMetrics

    fit = keras.callbacks.CallbackList(callbacks, model=model)
    exact = next(callback for callback in callbacks if isinstance(callback, ExactMetrics))
    fit.on_train_begin()
    results = evaluate()
    fit.on_epoch_begin(progress.epoch)
    exact.take(progress.metrics, results)
    progress.metrics = []
    fit.on_epoch_end(progress.epoch, {})
    fit.on_train_end()


def _tensorboard(options: Options, run):
    import keras

    return keras.callbacks.TensorBoard(
        run.tensorboard,
        histogram_freq=1 if options.histograms else 0,
        write_graph=True,
        profile_batch=options.profile or 0,
    )


def _check(options: Options) -> None:
    if options.resume and options.run is None:
        raise UserError("--resume needs --run: name the folder of the run to go on with")
    for option in ("epochs", "batch_size", "lr", "base_batch", "bucket_mib"):
        if getattr(options, option) <= 0:
            raise UserError(f"--{option.replace('_', '-')} is {getattr(options, option)}; it must be above 0")
    for option in ("patience", "threads", "read_threads", "read_ahead", "shuffle_block", "shuffle_window"):
        value = getattr(options, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} is {value}; it must be at least 1")
    if options.profile and not 1 <= options.profile[0] <= options.profile[1]:
        raise UserError(f"--profile {' '.join(map(str, options.profile))}: give the first and the last step, from 1")
    for option in ("warmup_epochs", "checkpoint_every", "check_every"):
        if getattr(options, option) < 0:
            raise UserError(f"--{option.replace('_', '-')} is {getattr(options, option)}; it must not be negative")


def _silent(text: str) -> None:
    """What ranks other than 0 say."""
