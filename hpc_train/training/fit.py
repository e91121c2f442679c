"""The path that all trainers share, from options and a task to a finished run folder."""

import errno
import gc
import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.tracking import follow
from hpc_train.training import transfer
from hpc_train.training.options import Options, check
from hpc_train.training.task import Task
from hpc_train.units import rate
from hpc_train.watch.guard import NOTE
from hpc_train.watch.hang import HANG
from hpc_train.watch.record import END, RECORD

if TYPE_CHECKING:
    from hpc_train.data.catalogue.unchanged import Unchanged
    from hpc_train.files.whole import NotWritten
    from hpc_train.flops.work import Work
    from hpc_train.optim.ema import Averages
    from hpc_train.parallel.world import World
    from hpc_train.tracking.pictures import Pictures
    from hpc_train.training.assembly import Assembly
    from hpc_train.training.checkpoint import Progress
    from hpc_train.training.run_folder import Run
    from hpc_train.training.stopping import Requests, Stopped


@dataclass(frozen=True)
class _Training:
    """A training that has begun: what its steps share."""

    options: Options
    task: Task
    world: "World"
    requests: "Requests"
    assembly: "Assembly"
    run: "Run"
    progress: "Progress"
    averages: "Averages"
    work: "Work"
    trackers: list = field(default_factory=list)


def train(options: Options, task: Task) -> None:
    """Train, evaluate and save; every rank calls it, before any TensorFlow operation.

    SIGUSR1 and SIGTERM, to any rank, stop all ranks before the same step: rank 0 writes a checkpoint, and the process
    ends with status 75 (`stopping.UNFINISHED`). `--run` and `--resume` continue from there.

    Args:
        options: the trainer's options.
        task: what is trained, and how it is judged; with `--init` the run is named after that model.

    Raises:
        UserError: on every rank, for whatever the user can fix.
    """
    check(options)
    follow.check(options.track, task.benchmark)
    name = f"transfer-{options.init.stem}" if options.init else task.name
    from hpc_train import parallel
    from hpc_train.parallel.failure import begin_guard
    from hpc_train.training.stopping import Requests

    # Before the thread that listens for signals.
    begin_guard()
    requests = Requests()
    HANG.after, HANG.what = options.hang_after, options.hang
    world = parallel.init(options.seed, options.threads, options.deterministic, keras_defaults=True)

    from hpc_train.flops.work import Work
    from hpc_train.optim.ema import Averages
    from hpc_train.training.assembly import assemble

    began = time.time()
    assembly = assemble(options, task, world)
    with ExitStack() as ending:
        run, progress = _begin(name, options, world, assembly, ending)
        if world.is_root:
            _announce(name, world, assembly, run, progress)
        work = Work.of(assembly.model, options, assembly.feed.training, world.size)
        averages = Averages(assembly.model)
        RECORD.step = progress.step
        HANG.report_in(run.path / "hang")
        adding = ["--resume"] if options.run else [f"--run {run.path}", "--resume"]
        again = f"the same command{'' if options.resume else ' with ' + ' '.join(adding)}"
        HANG.hint = f"{again} goes on from the last checkpoint"
        NOTE.add(again=again, checkpoints=str(run.checkpoints))
        training = _Training(options, task, world, requests, assembly, run, progress, averages, work)
        if world.is_root:
            training.trackers.extend(ending.enter_context(_tracked(training, began)))
        _train(training)


def _train(training: _Training) -> None:
    """Train and save, in a run folder that this job owns. Collective."""
    import tensorflow as tf

    from hpc_train import parallel
    from hpc_train.training.callbacks import Checkpoints
    from hpc_train.training.stopping import Stopped

    callbacks = _callbacks(training)
    if training.world.is_root:
        # Both before the last checkpoint, which may take too long, and after it.
        training.requests.asked = partial(_note_pace, training, training.progress.step)
    training.requests.train()
    try:
        with _what_stands(training), _find(callbacks, Checkpoints).complete():
            results = _fit_epochs(training, callbacks)
    except Stopped as stopped:
        with _what_stands(training):
            _end_unfinished(training, callbacks, stopped)
    except tf.errors.OpError as error:
        raise (training.assembly.feed.error or error) from None
    RECORD.enter(END)
    with parallel.agree(training.world), _what_stands(training):
        if training.world.is_root:
            training.run.check_owner()
            _finish(training, results)


@contextmanager
def _what_stands(training: _Training) -> Iterator[None]:
    """Adds to an error of storage from where the run can be resumed."""
    import tensorflow as tf

    from hpc_train.files.whole import NotWritten
    from hpc_train.training import checkpoint

    run, options = training.run, training.options
    try:
        yield
    except (NotWritten, tf.errors.OpError) as error:
        failed = error if isinstance(error, NotWritten) else _of_tensorboard(run, error)
        if failed is None:
            raise
        newest = None
        with suppress(OSError, UserError):
            newest, _ = checkpoint.last_whole(run.checkpoints)
        adding = [f"--run {run.path}"] * (not options.run) + ["--resume"] * (not options.resume)
        again = f"the same command{' with ' * bool(adding)}{' '.join(adding)}"
        step = checkpoint.step_of(newest)
        stands = f"the last whole checkpoint is that of step {step}: {again} goes on from there"
        raise NotWritten(f"{failed}; {stands if newest else f'no checkpoint yet: {again} begins again'}") from error


def _of_tensorboard(run: "Run", error: Exception) -> "NotWritten | None":
    """TensorFlow's error as one of storage, where it is about the run's events."""
    from hpc_train.files.whole import not_written

    text = str(error)
    code = next((code for code in errno.errorcode if f"; {os.strerror(code)}" in text), None)
    return not_written(run.tensorboard, code) if code and str(run.tensorboard) in text else None


def _begin(
    name: str, options: Options, world: "World", assembly: "Assembly", ending: ExitStack
) -> "tuple[Run, Progress]":
    """Make the run folder or reopen it, and load its newest checkpoint into the model. Collective.

    `ending` gives the folder up.
    """
    from hpc_train import parallel
    from hpc_train.training import checkpoint, ownership
    from hpc_train.training.run_folder import Run

    path = options.run
    with parallel.agree(world):
        if world.is_root and path is None:
            path = Run.new_path(name)
    run = Run(parallel.broadcast_object(path))
    progress = checkpoint.Progress()
    hosts = [member.host for member in HANG.members]
    with parallel.agree(world):
        if world.is_root:
            run.check_free(options.resume)
            run.lock = ending.enter_context(ownership.owned(run.path))
            checkpoint.place(run.checkpoints, options.checkpoints)
            ownership.warn_of_others(run.path, run.checkpoints)
            newest = checkpoint.newest(run.checkpoints)
            facts = _facts(name, options, assembly)
            run.start(options, world, facts, options.resume, checkpoint.step_of(newest), hosts)
            if newest:
                progress = checkpoint.load(newest, assembly.model)
            ending.callback(run.note_failure)
            run.forget_metrics_after(progress.epoch)
    progress = parallel.broadcast_object(progress)
    # For a run that only has its last evaluation left; otherwise `fit` begins with this as well.
    parallel.broadcast_variables(assembly.model)
    return run, progress


def _facts(name: str, options: Options, assembly: "Assembly") -> dict:
    """What a resumed run must share with its earlier starts."""
    training = assembly.feed.training
    facts = {"trainer": name, "seed": options.seed, "samples": training.samples, "data": training.identity}
    # `predict` tells numbers from classes by this and by the loss.
    facts["classes"] = training.classes
    facts |= assembly.facts | assembly.feed.facts
    if training.encoding:
        facts |= {"image_size": options.image_size, "crop": options.crop}
    return facts


def _announce(name: str, world: "World", assembly: "Assembly", run: "Run", progress: "Progress") -> None:
    plan, line = assembly.plan, assembly.rates.line
    say(
        f"{name}: {_parameters(assembly.model)}, {plan.samples} samples, {world.size} ranks, global batch "
        f"{plan.global_batch}{line and f', {line}'}, run {run.path}"
    )
    for line in (*assembly.notes, *assembly.feed.description(plan)):
        say(f"  {line}")
    if progress.step:
        say(f"resuming after step {progress.step}: epoch {progress.epoch + 1}, sample {progress.position}")


def _callbacks(training: _Training) -> list:
    """The callbacks of `fit`, in the order in which they need each other."""
    from hpc_train import parallel
    from hpc_train.optim.ema import EvaluateAverages
    from hpc_train.parallel.sync import SlowRanks
    from hpc_train.tracking.tensorboard import TensorBoard
    from hpc_train.training import checkpoint
    from hpc_train.training.callbacks import Best, Checkpoints, DataUnchanged, Position, Report
    from hpc_train.training.input_wait import InputWait

    options, task, world, run = training.options, training.task, training.world, training.run
    assembly, progress, averages = training.assembly, training.progress, training.averages
    part = checkpoint.agree_on_parts(options.checkpoint_parts, assembly.model, run.checkpoints, world)
    keep = checkpoint.Keep(options.keep, options.keep_every)
    writer = checkpoint.Writer(run.checkpoints, part, keep, run.check_owner, run.to_note)
    wait = InputWait()
    validation_steps = assembly.validation.real_steps(world.rank)
    callbacks = [
        *parallel.callbacks(options.check_every, validation_steps, check_samples=False, say_slow=False),
        EvaluateAverages(averages),
        wait,
        Position(progress, assembly, world),
        DataUnchanged(_watched(training)),
        Best(run, world, progress, assembly.monitor, options.patience, averages),
    ]
    if world.is_root:
        slow = _find(callbacks, SlowRanks)
        report = Report(run, world, progress, assembly, options.epochs, task.shown, training.work, wait, slow)
        callbacks += [
            report,
            TensorBoard(run.tensorboard, options.histograms, _profiled(training), _pictures(training)),
        ]
    callbacks.append(Checkpoints(writer, world, progress, options.checkpoint_every, training.requests, averages))
    # After the checkpoint: what has one is seldom done again.
    return [*callbacks, *training.trackers]


def _pictures(training: _Training) -> "Pictures | None":
    """What draws the predictions of held-out samples; the first ones of this rank, which are always the same."""
    from hpc_train.tracking.pictures import Pictures

    feed, plan = training.assembly.feed, training.assembly.validation
    if not training.options.pictures:
        return None
    held_out = partial(feed.validation, plan)
    return Pictures(training.options.pictures, held_out, training.averages.in_place, feed.held_out.class_names)


def _profiled(training: _Training) -> tuple[int, int] | None:
    """The steps to profile; rank 0 says so where there will be none."""
    plan, progress, options = training.assembly.plan, training.progress, training.options
    steps = plan.steps(progress.position) + (options.epochs - progress.epoch - 1) * plan.steps()
    if options.profile and options.profile[0] > steps:
        first, last = options.profile
        say(f"--profile {first} {last}: nothing is profiled, as this start makes {steps} steps; they count from 1")
        return None
    return options.profile


def _tracked(training: _Training, began: float) -> AbstractContextManager:
    """The callbacks of --track, for the time of the training. Rank 0 calls it."""
    from hpc_train.tracking.callback import tracked
    from hpc_train.tracking.mlperf import Log, settings

    options, task, run = training.options, training.task, training.run
    log = None
    if "mlperf" in options.track:
        values = settings(options, training.world, training.assembly)
        log = Log(run.path / "tracking" / "mlperf.log", task.benchmark, values, began, training.assembly.rates.now)
    return tracked(options.track, run, log)


def _watched(training: _Training) -> "list[Unchanged]":
    """This rank's share of the files that must not change."""
    from hpc_train.data.catalogue.unchanged import Unchanged
    from hpc_train.data.options import is_synthetic

    options, world, feed = training.options, training.world, training.assembly.feed
    if is_synthetic(options):
        return []
    # Each node has copies of its own.
    share = (world.local_rank, world.local_size) if options.stage else (world.rank, world.size)
    return [Unchanged(split, *share) for split in (feed.training, feed.held_out)]


def _fit_epochs(training: _Training, callbacks: list) -> dict[str, float]:
    """Train the epochs that are left; returns the results of the last evaluation. Collective."""
    from hpc_train import parallel
    from hpc_train.optim.ema import EvaluateAverages
    from hpc_train.training.callbacks import Best, Checkpoints
    from hpc_train.watch.callback import Phases

    assembly, progress, epochs = training.assembly, training.progress, training.options.epochs
    plan, validation = assembly.plan, assembly.validation
    held_out_data = None if assembly.reported is None else assembly.feed.validation(validation)

    def evaluate():
        if held_out_data is None:
            return {}
        also = [_find(callbacks, kind) for kind in (Phases, EvaluateAverages, Checkpoints)]
        return parallel.evaluate(assembly.model, held_out_data, validation.real_steps(training.world.rank), also)

    if not plan.steps(progress.position):
        _end_epoch(assembly.model, progress, callbacks, evaluate)
    # Keras makes the same number of steps in every epoch; a resumed epoch has fewer, so it gets its own `fit`.
    resumed = [progress.epoch + 1] if progress.position else []
    best = _find(callbacks, Best)
    for last_epoch in [*resumed, epochs]:
        if progress.epoch < last_epoch <= epochs and not best.exhausted(progress.epoch):
            _fit(assembly.model, assembly.feed, plan, progress, last_epoch, callbacks, held_out_data)
    return evaluate()


def _finish(training: _Training, results: dict[str, float]) -> None:
    """Save the model and print the summary. Rank 0 calls it."""
    from hpc_train import parallel
    from hpc_train.metrics.unfound import advice, never_right

    run = training.run
    shown = results if training.task.shown is None else (*training.task.shown, "loss")
    with training.averages.in_place():
        parallel.save_model(training.assembly.model, run.model)
    last = run.metrics()[-1] if run.metrics() else {}
    named = ", ".join(f"{key} {results[key]:.4f}" for key in shown if key in results)
    waited = f", input wait {last['input_wait']:.1%}" if "input_wait" in last else ""
    speed = last.get("samples_per_s", 0)
    held_out = f"{training.assembly.feed.held_out.split or 'held-out'} {named}" if named else "trained"
    if missed := never_right(results):
        say(advice(missed, "never predicted right in validation", asdict(training.options)))
    say(
        f"{held_out} after {training.progress.epoch} epochs, "
        f"{rate(speed)} samples/s on {training.world.size} ranks{training.work.describe(speed)}{waited}"
    )
    run.to_note(training.progress.step, ended=True)()
    say(f"{run.where_time_went()}\nrun folder {run.path}")


def _parameters(model) -> str:
    from hpc_train.parallel.variables import parameters

    frozen = [weight for layer in transfer.layers(model) if not layer.trainable for weight in layer.weights]
    kept = sum(math.prod(weight.shape) for weight in frozen)
    return f"{parameters(model):,} parameters" + (f", {kept:,} of them frozen" if kept else "")


def _note_pace(training: _Training, first: int) -> None:
    training.run.note_pace(training.progress.step - first)


def _end_unfinished(training: _Training, callbacks: list, stopped: "Stopped") -> None:
    """End a training that was stopped, with the status that says so. Collective; does not return."""
    import keras

    from hpc_train import parallel
    from hpc_train.training.input_wait import InputWait
    from hpc_train.training.stopping import UNFINISHED

    RECORD.enter(END)
    options, progress, world = training.options, training.progress, training.world
    if world.is_root:
        training.requests.asked()
        epoch = min(progress.epoch + 1, options.epochs)
        go_on = "" if options.resume and options.run else f"; continue with --run {training.run.path} --resume"
        say(f"stopped by {stopped} after step {progress.step}, in epoch {epoch} of {options.epochs}{go_on}")
        training.run.to_note(progress.step, ended=True)()
        say(training.run.where_time_went())
    for callback in callbacks:
        if isinstance(callback, (keras.callbacks.TensorBoard, InputWait)):
            callback.on_train_end()
    # The traceback holds the data pipeline, which prints errors when it outlives the interpreter.
    stopped.with_traceback(None)
    gc.collect()
    parallel.end_together(world, UNFINISHED)


def _fit(model, feed, plan, progress, last_epoch, callbacks, validation_data) -> None:
    from hpc_train.training.input_wait import InputWait

    steps = plan.steps(progress.position)
    here = plan, progress.epoch, progress.position, steps + (last_epoch - progress.epoch - 1) * plan.steps()
    wait = _find(callbacks, InputWait)
    wait.take_from(feed.handed(*here))
    try:
        model.fit(
            feed.batches(*here),
            initial_epoch=progress.epoch,
            epochs=last_epoch,
            steps_per_epoch=steps,
            validation_data=validation_data,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
    finally:
        # After an error, too, nothing reads on.
        wait.take_from(None)


def _end_epoch(model, progress, callbacks, evaluate) -> None:
    """Validate and end an epoch whose last step an earlier start has made. Collective."""
    import keras

    from hpc_train.parallel.metrics import ExactMetrics

    fit = keras.callbacks.CallbackList(callbacks, model=model)
    exact = _find(callbacks, ExactMetrics)
    fit.on_train_begin()
    results = evaluate()
    fit.on_epoch_begin(progress.epoch)
    exact.take(progress.metrics, results)
    progress.metrics = []
    fit.on_epoch_end(progress.epoch, {})
    fit.on_train_end()


def _find(callbacks: list, kind: type):
    return next(callback for callback in callbacks if isinstance(callback, kind))
