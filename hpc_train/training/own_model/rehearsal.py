"""A model's steps, traced before the first one is made: all variables exist, and what does not fit is one line."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.agreement.watch import WATCH
from hpc_train.parallel.metrics.logs import Result, forget, record, sources
from hpc_train.parallel.metrics.rules import watch
from hpc_train.parallel.metrics.tracked import leaves
from hpc_train.parallel.unbuilt import built
from hpc_train.parallel.variables import everything
from hpc_train.training.own_model import fitting
from hpc_train.training.own_model.script import in_a_line

# Operations that hand a network's output on as it is.
_SAME = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims")
# Of tf.random: their state is TensorFlow's.
_DRAWN = ("RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal", "RandomGamma")


def has_own_step(model, step: str) -> bool:
    """Whether a model's `train_step` or `test_step` is not Keras's."""
    return getattr(getattr(model, step), "__func__", None) is not getattr(keras.Model, step)


def gives_logits(model, batch, name: str = "") -> bool:
    """Whether an output of the network does not end in softmax or sigmoid.

    Args:
        model: any that can be called.
        batch: shapes and dtypes of a batch: (inputs, targets, ...).
        name: of the output, where there are several; all are looked at where the network does not name them.
    """
    inputs = keras.utils.unpack_x_y_sample_weight(batch)[0]
    graph = _traced(lambda x: model(x, training=False), inputs, f"{model.name} cannot be called on a batch").graph
    ends = graph.structured_outputs
    for output in [ends[name]] if isinstance(ends, Mapping) and name in ends else graph.outputs:
        while output.op.type in _SAME:
            output = output.op.inputs[0]
        if output.op.type in ("Softmax", "Sigmoid"):
            return False
    return True


def training(model, batch) -> list[str]:
    """Trace the model's own `train_step`, which makes its variables and those of its optimizers.

    Args:
        model: compiled.
        batch: as in `gives_logits`.

    Returns:
        Lines to print.

    Raises:
        UserError: it fails, or changes state that no checkpoint would have.
    """
    what = f"train_step of {type(model).__name__}"
    graph = _traced(model.train_step, batch, what).graph
    built(model)
    # Keras calls a model built that was called; one whose parts alone are called can be saved as well.
    model.built = True
    held = [*everything(model), *(variable for metric in leaves(model) for variable in metric.variables)]
    known = {id(variable.value.handle) for variable in held}
    changed = {id(op.inputs[0]) for op in graph.get_operations() if op.type.startswith(("Assign", "ResourceScatter"))}
    loose = [id(handle) for handle, inside in graph.captures if id(inside) in changed and id(handle) not in known]
    names = [variable.name.partition(":")[0] for variable in graph.variables if id(variable.handle) in loose]
    if state := next((name for name in names if not name.endswith("seed_generator_state")), None):
        raise UserError(
            f"{what} changes {state}, which the model does not hold: no rank would share it, and no checkpoint have "
            "it; keep its optimizer, layer or metric as an attribute of the model"
        )
    drawn = {op.type for op in graph.get_operations() if op.type in _DRAWN}
    if names or drawn:
        return [
            f"{what} draws random numbers that are the same on every rank, and others when the run is resumed: give "
            "keras.random a seed=keras.random.SeedGenerator(...) that is an attribute of the model"
        ]
    return []


def evaluation(model, batch, classes: int) -> dict[str, Any]:
    """Trace `test_step`: check that loss and metrics fit, and find what validation reports.

    Args:
        model: compiled.
        batch: as in `gives_logits`, of held-out data.
        classes: number of classes of the targets; 0 for none.

    Returns:
        The metric behind each of its logs, by the log's name; None for a log that comes from no metric.

    Raises:
        UserError: it fails, or loss or metrics do not fit.
    """
    watch(model)
    record(model)
    try:
        with _judged(model, classes):
            traced = _traced(model.test_step, batch, f"evaluating {type(model).__name__}")
        names = list(_flat(traced.structured_outputs))
        known = sources(model, "test_step")
    finally:
        forget(model)
    if known is None:
        return {name: _named(leaves(model), name) for name in names}
    return {name: source.metric if isinstance(source := known.get(name), Result) else None for name in names}


def _traced(step: Callable, batch, what: str):
    # Nothing is computed here, so no rank waits for another.
    over, WATCH.over = WATCH.over, True
    try:
        return tf.function(step, autograph=False).get_concrete_function(batch)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {in_a_line(error)}") from error
    finally:
        WATCH.over = over


@contextmanager
def _judged(model, classes: int) -> Iterator[None]:
    """In the `with` block, look at the targets and outputs that the model's losses and metrics get."""
    compute_loss, compute_metrics, call = model.compute_loss, model.compute_metrics, keras.losses.Loss.__call__

    def looked_loss(*args, **kwargs):
        given = inspect.signature(compute_loss).bind(*args, **kwargs).arguments
        outputs = given.get("y_pred")
        if isinstance(given.get("y"), Mapping) and not keras.tree.is_nested(outputs):
            raise UserError(
                f"the network has one output, without a name, and the targets are called {', '.join(given['y'])}: "
                "leave the name out of --targets, or let the network return a dict by these names"
            )

        def looked(loss, y_true, y_pred, *more, **also):
            fitting.check(loss, f"loss {loss.name}", y_true, y_pred, classes, _name(model, outputs, y_pred))
            return call(loss, y_true, y_pred, *more, **also)

        keras.losses.Loss.__call__ = looked
        try:
            return compute_loss(*args, **kwargs)
        finally:
            keras.losses.Loss.__call__ = call

    def looked_metrics(x, y, y_pred, *args, **kwargs):
        # Called once, the model has them all.
        results = compute_metrics(x, y, y_pred, *args, **kwargs)
        looked = [metric for metric in leaves(model) if "update_state" not in vars(metric)]
        for metric in looked:
            metric.update_state = _looked_update(model, y_pred, metric, classes)
        try:
            compute_metrics(x, y, y_pred, *args, **kwargs)
        finally:
            for metric in looked:
                del metric.update_state
        return results

    model.compute_loss, model.compute_metrics = looked_loss, looked_metrics
    try:
        yield
    finally:
        del model.compute_loss, model.compute_metrics


def _looked_update(model, outputs, metric, classes: int) -> Callable:
    """The metric's `update_state`, which checks first that what it gets fits."""
    update = metric.update_state

    def looked(*given, **kwargs):
        if len(given) > 1:
            target, output, *_ = given
            fitting.check(metric, f"metric {metric.name}", target, output, classes, _name(model, outputs, output))
        return update(*given, **kwargs)

    return looked


def _name(model, outputs, output) -> str:
    """The name of one of several outputs; empty for the only one, and for what is none of them."""
    if isinstance(outputs, Mapping):
        named = dict(outputs)
    else:
        flat = keras.tree.flatten(outputs)
        names = getattr(model, "output_names", None) or map(str, range(len(flat)))
        named = dict(zip(names, flat, strict=False))
    return next((str(name) for name, one in named.items() if one is output), "") if len(named) > 1 else ""


def _flat(logs) -> Iterator[str]:
    for key, value in logs.items():
        yield from _flat(value) if isinstance(value, Mapping) else [key]


def _named(metrics: list, log: str):
    """The metric of Keras's own step that gives this log; with several outputs, their names come first."""
    fits = [metric for metric in metrics if log == metric.name or log.endswith(f"_{metric.name}")]
    if not fits:
        # Those that give several numbers name them themselves.
        several = [(metric, metric.result()) for metric in metrics]
        fits = [metric for metric, results in several if isinstance(results, Mapping) and log in results]
    return max(fits, key=lambda metric: len(metric.name), default=None)
