"""Merging the metric states of all ranks, each by its metric's rule."""

import keras
import numpy as np

from hpc_train.parallel.collectives import gather_objects, reduce_arrays
from hpc_train.parallel.metrics.rules import REDUCTIONS, not_mergeable, rule
from hpc_train.parallel.metrics.tracked import by_metric, initial

_NUMPY = {"sum": np.add, "max": np.maximum, "min": np.minimum, "product": np.multiply}


def merge_states(model, local: list[np.ndarray], name: str) -> list[np.ndarray]:
    """The metric states that one rank would have that had seen all ranks' samples. Collective.

    Args:
        model: whose metrics they are.
        local: this rank's states, in the order of `states`.
        name: of the operation: "train".

    Returns:
        Arrays in the order of `states`, most of them float64.

    Raises:
        UserError: on every rank, if a metric's states cannot be merged.
    """
    name = f"hpc_train.metrics.{name}"
    deltas = [_Deltas(metric, values) for metric, values in by_metric(model, local)]
    for reduction in REDUCTIONS:
        places = [(delta, i) for delta in deltas for i, kind in enumerate(delta.rule or ()) if kind == reduction]
        if places:
            reduced = reduce_arrays([delta.values[i] for delta, i in places], reduction, name)
            for (delta, i), array in zip(places, reduced, strict=True):
                delta.values[i] = array
    own = [delta for delta in deltas if delta.rule is None]
    if own:
        of_ranks = gather_objects([delta.values for delta in own], name)
        for delta, *values in zip(own, *of_ranks, strict=True):
            delta.values = _merged_by_itself(delta.metric, values)
    return [array for delta in deltas for array in delta.merged()]


def join_states(model, first: list[np.ndarray], second: list[np.ndarray]) -> list[np.ndarray]:
    """As `merge_states`, of two lists of states that are both here."""
    joined = []
    for (metric, a), (_, b) in zip(by_metric(model, first), by_metric(model, second), strict=True):
        ours, theirs = _Deltas(metric, a), _Deltas(metric, b)
        if ours.rule is None:
            ours.values = _merged_by_itself(metric, [a, b])
        else:
            pairs = zip(ours.rule, ours.values, theirs.values, strict=True)
            ours.values = [_NUMPY[reduction](x, y) for reduction, x, y in pairs]
        joined += ours.merged()
    return joined


class _Deltas:
    """What an epoch brought to one metric's states: sums without where they began, products as factors."""

    def __init__(self, metric, values: list[np.ndarray]):
        self.metric, self.begin = metric, initial(metric)
        try:
            self.rule = rule(metric)
        except LookupError:
            if any(not np.array_equal(value, begin) for value, begin in zip(values, self.begin, strict=True)):
                raise not_mergeable(metric) from None
            self.rule = ("sum",) * len(values)  # of a metric that nothing updates
        self.values = values
        if self.rule:
            self.values = [self._out(*parts) for parts in zip(self.rule, values, self.begin, strict=True)]

    def merged(self) -> list[np.ndarray]:
        """The states, after `values` were merged."""
        if not self.rule:
            return self.values
        return [self._back(*parts) for parts in zip(self.rule, self.values, self.begin, strict=True)]

    @staticmethod
    def _out(reduction: str, value, begin):
        value, begin = np.asarray(value, "float64"), np.asarray(begin, "float64")
        if reduction == "sum":
            return value - begin
        return np.divide(value, begin, out=np.zeros_like(value), where=begin != 0) if reduction == "product" else value

    @staticmethod
    def _back(reduction: str, value, begin):
        begin = np.asarray(begin, "float64")
        return value + begin if reduction == "sum" else value * begin if reduction == "product" else value


def _merged_by_itself(metric, of_ranks: list[list[np.ndarray]]) -> list[np.ndarray]:
    """The states of several ranks, merged by the metric's own `merge_state`."""
    kept = [np.asarray(variable) for variable in metric.variables]
    first, *others = of_ranks
    for variable, value in zip(metric.variables, first, strict=True):
        variable.assign(value)
    metric.merge_state([_stand_in(metric, values) for values in others])
    merged = [np.asarray(variable) for variable in metric.variables]
    for variable, value in zip(metric.variables, kept, strict=True):
        variable.assign(value)
    return merged


def _stand_in(metric, values: list[np.ndarray]):
    """A metric like this one, whose variables are tensors with these values."""
    tensors = {
        id(variable): keras.ops.convert_to_tensor(value, variable.dtype)
        for variable, value in zip(metric.variables, values, strict=True)
    }

    def replaced(part):
        if isinstance(part, keras.Variable):
            return tensors.get(id(part), part)
        if isinstance(part, keras.metrics.Metric):
            return copied(part)
        return [replaced(inner) for inner in part] if isinstance(part, list) else part

    def copied(part):
        copy = object.__new__(type(part))
        vars(copy).update({key: replaced(value) for key, value in vars(part).items()})
        return copy

    return copied(metric)
