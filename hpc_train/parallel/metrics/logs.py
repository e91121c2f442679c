"""Where the numbers come from that a model's own `train_step` or `test_step` returns."""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.metrics.formula import Formula
from hpc_train.parallel.metrics.tracked import leaves

_sources: WeakKeyDictionary = WeakKeyDictionary()


@dataclass(frozen=True)
class Result:
    """One number of a metric's result: its place in it, where that is a dict."""

    metric: keras.metrics.Metric
    place: str | None

    def __call__(self):
        result = self.metric.result()
        return result if self.place is None else result[self.place]


def sources(model, step: str) -> dict[str, Callable | None] | None:
    """How each log of a step is computed from the model's metrics; None for one that is not.

    Args:
        model: on which `record` was called.
        step: "train_step" or "test_step".

    Returns:
        A function without arguments for each log; None where the step is Keras's own, or has not run yet.
    """
    return _sources.get(model, {}).get(step)


def record(model) -> list[str]:
    """Note the sources of the logs of the model's own steps when they are traced, or run eagerly.

    Returns:
        The steps that must be traced anew for that.
    """
    new = []
    for name in ("train_step", "test_step"):
        step = getattr(model, name)
        ours = getattr(step, "__func__", None) is getattr(keras.Model, name)
        if (ours and type(model).compute_metrics is keras.Model.compute_metrics) or recorded(model, name):
            continue
        setattr(model, name, _recorded(model, name, step))
        if sources(model, name) is None:
            new.append(name)
    return new


def recorded(model, step: str) -> bool:
    """Whether `record` looks into this step."""
    return hasattr(getattr(model, step), "records")


def forget(model) -> None:
    """Take off what `record` put on."""
    for name in ("train_step", "test_step"):
        step = getattr(model, name)
        if recorded(model, name):
            delattr(model, name)
            if step.was_set:
                setattr(model, name, step.records)


def _recorded(model, name: str, step: Callable) -> Callable:
    def note(data):
        heard: dict[int, tuple] = {}
        metrics = leaves(model)
        listening = [metric for metric in metrics if "result" not in vars(metric)]
        for metric in listening:
            metric.result = _heard(metric, metric.result, heard)
        try:
            logs = step(data)
        finally:
            for metric in listening:
                vars(metric).pop("result", None)
        _sources.setdefault(model, {})[name] = {
            key: _source(f"{name}: log {key!r}", value, heard) for key, value in flatten(logs, name).items()
        }
        return logs

    note.records, note.was_set = step, name in vars(model)  # type: ignore[attr-defined]
    return note


def flatten(logs, step: str) -> dict:
    """Logs as Keras hands them to callbacks: the content of dicts inside, one beside the other.

    Raises:
        UserError: they are no dict.
    """
    if not isinstance(logs, dict):
        raise UserError(f"{step} returns {type(logs).__name__}, not a dict from names to numbers").agreed()
    flat: dict = {}
    for key, value in logs.items():
        flat.update(flatten(value, step) if isinstance(value, dict) else {key: value})
    return flat


def _heard(metric, result: Callable, heard: dict[int, tuple]) -> Callable:
    def hear():
        value = result()
        parts = value.items() if isinstance(value, dict) else [(None, value)]
        for place, tensor in parts:
            # The tensor is kept, or another one could get its id.
            heard.setdefault(id(tensor), (tensor, Result(metric, place)))
        return value

    return hear


def _source(what: str, value, heard: dict[int, tuple]) -> Callable | None:
    if id(value) in heard:
        return heard[id(value)][1]
    if tf.is_tensor(value) and not (value.dtype.is_floating or value.dtype.is_integer or value.dtype.is_bool):
        raise UserError(f"{what} is {value.dtype.name}, not a number; leave it out of what the step returns").agreed()
    if tf.is_tensor(value) and not hasattr(value, "numpy"):
        return Formula.of(value, [(tensor, result) for tensor, result in heard.values() if tf.is_tensor(tensor)])
    return None
