"""What the trainers share: one path from options and a model to a finished run folder."""

import gc
import math
import socket

from hpc_train.console import say
from hpc_train.training import transfer
from hpc_train.training.options import Options, check
from hpc_train.training.task import Task


def train(options: Options, task: Task) -> None:
    """Train, evaluate and save; every rank calls it, before any TensorFlow operation.

    Args:
        options: the trainer's options.
        task: what is trained, and how it is judged; with `--init` the run is named after that.

    SIGUSR1 and SIGTERM, to any rank, stop all of them at one step: rank 0 writes a checkpoint, and the process ends
    with status 75 (`stopping.UNFINISHED`); `--run` and `--resume` go on from there.

    Raises:
        UserError: whatever the user can mend, on every rank.
    """
    check(options)
    name = f"transfer-{options.init.stem}" if options.init else task.name
    from hpc_train import parallel
    from hpc_train.training.stopping import Requests, Stopped

    requests = Requests()
    world = parallel.init(options.seed, options.threads, options.deterministic)

    import tensorflow as tf

    from hpc_train.flops.work import Work
    from hpc_train.optim.ema import Averages, EvaluateAverages
    from hpc_train.training import checkpoint
    from hpc_train.training.assembly import assemble
    from hpc_train.training.callbacks import Best, Checkpoints, Position, Report
    from hpc_train.training.input_wait import InputWait
    from hpc_train.training.run_folder import Run
    from hpc_train.units import rate

    assembly = assemble(options, task, world)
    feed, plan, validation, model, schedule = (
        assembly.feed,
        assembly.plan,
        assembly.validation,
        assembly.model,
        assembly.schedule,
    )
    training, held_out = feed.training, feed.held_out

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
            facts |= {"order": plan.order.as_dict(), **assembly.facts}
            if training.encoding:
                facts |= {"image_size": options.image_size, "crop": options.crop}
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
        f"{name}: {_parameters(model)}, {plan.samples} samples, {world.size} ranks, global batch {plan.global_batch}, "
        f"rate {schedule.start:g} -> {schedule.peak:g}, run {run.path}"
    )
    for line in [*assembly.notes, *feed.description(plan)] if world.is_root else ():
        tell(f"  {line}")
    if progress.step:
        tell(f"resuming after step {progress.step}: epoch {progress.epoch + 1}, sample {progress.position}")

    validation_steps = validation.real_steps(world.rank)
    callbacks = parallel.callbacks(options.check_every, validation_steps)
    wait, averages = InputWait(), Averages(model)
    work = Work.of(model, options, training.input_shape, world.size)
    evaluate_averages = EvaluateAverages(averages)
    callbacks += [evaluate_averages, wait, Position(progress, plan, schedule, world)]
    best = Best(run, world, progress, f"val_{task.monitor}", options.patience, averages)
    callbacks += [best]
    if world.is_root:
        callbacks += [
            Report(run, world, progress, plan, options.epochs, task.shown, work, wait),
            _tensorboard(options, run),
        ]
    checkpoints = Checkpoints(run, world, progress, options.checkpoint_every, requests, averages)
    callbacks += [checkpoints]

    requests.train()
    try:
        held_out_data = feed.validation(validation)

        def evaluate():
            return parallel.evaluate(model, held_out_data, validation_steps, [evaluate_averages, checkpoints])

        if not plan.steps(progress.position):
            _end_epoch(model, progress, callbacks, evaluate)
        # Keras counts the same steps in every epoch; a resumed epoch has fewer, so it gets a fit of its own.
        resumed = [progress.epoch + 1] if progress.position else []
        for last_epoch in [*resumed, options.epochs]:
            if progress.epoch < last_epoch <= options.epochs and not best.exhausted(progress.epoch):
                _fit(model, feed, plan, progress, last_epoch, callbacks, held_out_data)
        results = evaluate()
    except Stopped as stopped:
        go_on = "" if options.resume and options.run else f"; go on with --run {run.path} --resume"
        epoch = min(progress.epoch + 1, options.epochs)
        tell(f"stopped by {stopped} after step {progress.step}, in epoch {epoch} of {options.epochs}{go_on}")
        _end_unfinished(world, stopped, callbacks)
    except tf.errors.OpError as error:
        raise (feed.error or error) from None

    if world.is_root:
        with averages.in_place():
            parallel.save_model(model, run.model)
        last = run.metrics()[-1] if run.metrics() else {}
        named = ", ".join(f"{key} {results[key]:.4f}" for key in (*task.shown, "loss") if key in results)
        waited = f", input wait {last['input_wait']:.1%}" if "input_wait" in last else ""
        speed = last.get("samples_per_s", 0)
        tell(
            f"{held_out.split or 'held-out'} {named} after {progress.epoch} epochs, {rate(speed)} samples/s on "
            f"{world.size} ranks{work.describe(speed)}{waited}\nrun folder {run.path}"
        )


def _parameters(model) -> str:
    frozen = [weight for layer in transfer.layers(model) if not layer.trainable for weight in layer.weights]
    kept = sum(math.prod(weight.shape) for weight in frozen)
    return f"{model.count_params():,} parameters" + (f", {kept:,} of them frozen" if kept else "")


def _end_unfinished(world, stopped, callbacks) -> None:
    """Let go of what outlives a training that was stopped, and end with the status that says so."""
    import keras

    from hpc_train import parallel
    from hpc_train.training.input_wait import InputWait
    from hpc_train.training.stopping import UNFINISHED

    for callback in callbacks:
        if isinstance(callback, (keras.callbacks.TensorBoard, InputWait)):
            callback.on_train_end()
    # The trace holds the pipeline, which complains when it outlives the interpreter.
    stopped.with_traceback(None)
    gc.collect()
    parallel.end_together(world, UNFINISHED)


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


def _silent(text: str) -> None:
    """What ranks other than 0 say."""
