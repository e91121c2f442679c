"""The metrics of a model and their states."""

import keras
import numpy as np

from hpc_train.errors import UserError


def leaves(model) -> list:
    """Every metric that the model's steps may update, once: those of `model.metrics`, then others that it holds.

    A model that defines `metrics` itself may use more than it lists there. Keras's containers give way to their parts.
    """
    layers = model._flatten_layers(include_self=False)
    held = [*model.metrics, *_metrics_in(list(vars(model).values())), *(m for layer in layers for m in layer.metrics)]
    flat = [part for metric in held for part in _parts(metric)]
    return list({id(metric): metric for metric in flat}.values())


def compiled(model) -> list:
    """Metric objects given to `compile`, which the model has not built yet."""
    container = getattr(model, "_compile_metrics", None)
    given = (getattr(container, name, None) for name in ("_user_metrics", "_user_weighted_metrics"))
    return _metrics_in(keras.tree.flatten(list(given)))


def states(model) -> list[np.ndarray]:
    """This rank's metric states: each state of each of `leaves`, an array."""
    return [np.asarray(variable) for metric in leaves(model) for variable in metric.variables]


def assign_states(model, values) -> None:
    """Set the metric states, in the order of `states`.

    Raises:
        UserError: a count is too large for its variable.
    """
    pairs = [(metric, variable) for metric in leaves(model) for variable in metric.variables]
    for (metric, variable), value in zip(pairs, values, strict=True):
        value = np.asarray(value)
        if "int" in variable.dtype and value.size and np.abs(value).max() > np.iinfo(variable.dtype).max:
            raise UserError(
                f"metric {metric.name}: {variable.path} counts to {np.abs(value).max():.0f} over all ranks, too much "
                f"for {variable.dtype}"
            ).agreed()
        variable.assign(value.astype(variable.dtype))


def by_metric(model, values: list[np.ndarray]) -> list[tuple]:
    """Pairs of a metric and its part of `values`, which are in the order of `states`."""
    rest = iter(values)
    return [(metric, [next(rest) for _ in metric.variables]) for metric in leaves(model)]


def initial(metric) -> list[np.ndarray]:
    """A metric's states before it has seen anything."""
    return [np.asarray(value) for value in metric.stateless_reset_state()]


def _parts(metric) -> list:
    # Keras's container of what `compile` was given, and that of one output.
    if type(metric).__name__ in ("CompileMetrics", "MetricsList") and type(metric).__module__.startswith("keras."):
        return [part for inner in metric.metrics for part in _parts(inner)]
    return [metric]


def _metrics_in(values) -> list:
    found = []
    for value in values:
        if isinstance(value, keras.metrics.Metric):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [part for part in value if isinstance(part, keras.metrics.Metric)]
        elif isinstance(value, dict):
            found += [part for part in value.values() if isinstance(part, keras.metrics.Metric)]
    return found
