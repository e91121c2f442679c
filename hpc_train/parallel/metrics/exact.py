"""Logs that are the same on all ranks, from each rank's metric states and its own logs."""

from weakref import WeakKeyDictionary

import horovod.tensorflow as hvd
import numpy as np

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.parallel.collectives import equal_on_all_ranks, gather_objects, reduce_arrays, sum_arrays
from hpc_train.parallel.metrics.logs import flatten, sources
from hpc_train.parallel.metrics.merging import merge_states
from hpc_train.parallel.metrics.tracked import assign_states, by_metric, initial, states

# Ranks on different processors may differ that much in a result from the same states.
_ROUNDING = 1e-4
_said: WeakKeyDictionary = WeakKeyDictionary()


def exact_logs(model, step: str, local: list[np.ndarray], logs: dict, weight: int = 1) -> dict:
    """The logs of one rank that had seen the samples of all ranks. Collective.

    Args:
        model: whose step it was.
        step: "train_step" or "test_step".
        local: this rank's metric states, in the order of `states`.
        logs: what this rank's step gave.
        weight: 0 where this rank's step saw no real samples, so that its own numbers do not count.

    Returns:
        The same keys as in `logs`, with the same values on every rank.

    Raises:
        UserError: on every rank: a metric whose states cannot be merged, logs that are no numbers, or not the same on
            all ranks.
    """
    logs = flatten(logs, step)
    _check_keys(step, logs, local)
    merged = merge_states(model, local, step)
    exact = results_of(model, merged, step, set(logs))
    numbers = {key: value for key, value in logs.items() if key not in exact}
    exact |= _means(model, step, numbers, weight)
    return _settled(step, {key: exact[key] for key in logs})


def results_of(model, merged: list[np.ndarray], step: str = "", keys: set[str] | None = None) -> dict:
    """What the model's metrics give from merged states; with `keys`, only those logs of `step` that metrics give."""
    kept = states(model)
    assign_states(model, merged)
    try:
        named = flatten(model.get_metrics_result(), "get_metrics_result")
        if keys is None:
            results = named
        else:
            known = sources(model, step)
            if keys == set(named):
                # As Keras does itself; but what the step did not update says nothing.
                idle = {metric.name for metric, values in by_metric(model, merged) if _idle(metric, values)}
                plain = {key for key, source in (known or {}).items() if source is None}
                results = {key: value for key, value in named.items() if key not in idle & plain}
            else:
                found = {key: source for key, source in (known or {}).items() if source is not None and key in keys}
                results = {key: source() for key, source in found.items()}
        return {key: _number(value) for key, value in results.items()}
    finally:
        assign_states(model, kept)


def _idle(metric, values: list[np.ndarray]) -> bool:
    return all(np.array_equal(value, begin) for value, begin in zip(values, initial(metric), strict=True))


def _number(value):
    array = np.asarray(value)
    return float(array.item()) if array.size == 1 else array


def _check_keys(step: str, logs: dict, local: list[np.ndarray]) -> None:
    shapes = [np.shape(state) for state in local]
    if equal_on_all_ranks(repr((sorted(logs), shapes)).encode(), f"hpc_train.logs.{step}"):
        return
    of_ranks = gather_objects((sorted(logs), shapes), f"hpc_train.logs.{step}.keys")
    rank = next(rank for rank, other in enumerate(of_ranks) if other != of_ranks[0])
    ours, theirs = set(of_ranks[0][0]), set(of_ranks[rank][0])
    if ours == theirs:
        what = "has metrics with states of other shapes than rank 0"
    else:
        parts = [f"lacks {', '.join(sorted(ours - theirs))}"] if ours - theirs else []
        parts += [f"has {', '.join(sorted(theirs - ours))} more"] if theirs - ours else []
        what = f"{' and '.join(parts)} in its logs, compared with rank 0"
    raise UserError(
        f"{step} gives not the same logs on all ranks: rank {rank} {what}; return the same names on every rank, and "
        "give every rank at least one batch"
    ).agreed()


def _means(model, step: str, numbers: dict, weight: int) -> dict:
    """Numbers that come from no metric: their means over the ranks, which rank 0 names once."""
    arrays = []
    for key, value in numbers.items():
        try:
            arrays.append(np.asarray(value, "float64"))
        except (TypeError, ValueError):
            kind = type(value).__name__
            raise UserError(
                f"{step}: log {key!r} is a {kind}, not a number; leave it out of the logs"
            ).agreed() from None
    if not arrays:
        return {}
    filled = [array if weight else np.zeros_like(array) for array in arrays]
    *sums, ranks = sum_arrays([*filled, np.array(float(weight))], f"hpc_train.logs.{step}.means")
    low, high = (reduce_arrays(arrays, side, f"hpc_train.logs.{step}") for side in ("min", "max"))
    uneven = [key for key, a, b in zip(numbers, low, high, strict=True) if not np.array_equal(a, b)]
    said = _said.setdefault(model, set())
    if uneven and hvd.rank() == 0 and step not in said:
        said.add(step)
        say(
            f"note: {step} does not compute {', '.join(uneven)} from metrics: the logs have the mean over the ranks of "
            "the last batch; for a mean over the epoch, return the result of a keras.metrics.Mean"
        )
    return {key: _number(total / max(float(ranks), 1.0)) for key, total in zip(numbers, sums, strict=True)}


def _settled(step: str, exact: dict) -> dict:
    """The same bits on all ranks; a metric that gives other numbers on another rank has state that is not merged."""
    arrays = [np.asarray(value, "float64") for value in exact.values()]
    missing = [np.isnan(array) * 1.0 for array in arrays]
    signed = [*arrays, *(-array for array in arrays), *missing, *(-array for array in missing)]
    finite = [np.nan_to_num(array, nan=0.0, posinf=np.inf, neginf=-np.inf) for array in signed]
    reduced = reduce_arrays(finite, "min", f"hpc_train.logs.{step}.settled")
    settled = {}
    for key, low, minus_high, everywhere, minus_somewhere in zip(exact, *_quarters(reduced), strict=True):
        if (everywhere != -minus_somewhere).any() or not np.allclose(low, -minus_high, rtol=_ROUNDING, atol=1e-12):
            raise UserError(
                f"{step}: {key} is not the same on all ranks after its metric's states were merged: the metric keeps "
                "something outside its variables; make them with add_variable"
            ).agreed()
        settled[key] = _number(np.where(everywhere > 0, np.nan, low))
    return settled


def _quarters(arrays: list) -> list[list]:
    count = len(arrays) // 4
    return [arrays[i * count : (i + 1) * count] for i in range(4)]
