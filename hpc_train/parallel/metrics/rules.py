"""How the states of one metric on several ranks become one: by what it declares, or by what its update does."""

from weakref import WeakKeyDictionary

from hpc_train.errors import UserError
from hpc_train.parallel.metrics.tracked import compiled, leaves
from hpc_train.parallel.metrics.updates import reductions

REDUCTIONS = ("sum", "max", "min", "product")
_seen: WeakKeyDictionary = WeakKeyDictionary()


def rule(metric) -> tuple[str, ...] | None:
    """The reduction over the ranks of each of a metric's states; None where the metric's `merge_state` does it.

    A class of one's own says it by `states_reduction`: one of `REDUCTIONS`, or a dict from the names of its variables
    to those; or by a method `merge_state(metrics)`, as tf.keras had it, which takes the states of other metrics of its
    class into this one. For other classes it is read from their `update_state` when that is first called.

    Raises:
        UserError: the metric's states cannot be merged, or not as it says.
        LookupError: nothing is known yet, as the metric has not been updated.
    """
    if callable(getattr(metric, "merge_state", None)):
        return None
    declared = getattr(metric, "states_reduction", None)
    if declared is not None:
        return _declared(metric, declared)
    if type(metric).update_state.__module__.split(".")[0] in ("keras", "hpc_train"):
        # All states of Keras's metrics are sums, and so are those of a class that updates them as Keras does.
        return ("sum",) * len(metric.variables)
    if metric not in _seen:
        raise LookupError(metric.name)
    return _seen[metric]


def watch(model) -> bool:
    """See how metrics of the user's own classes update their states, when they do so for the first time.

    Returns:
        Whether there are any that must be seen: a step that TensorFlow has traced already does not show them.

    Raises:
        UserError: a metric says something wrong about its states.
    """
    unseen = False
    for metric in {id(metric): metric for metric in [*leaves(model), *compiled(model)]}.values():
        try:
            rule(metric)
        except LookupError:
            unseen = True
            if "update_state" not in vars(metric):
                _watch(metric)
    return unseen


def _watch(metric) -> None:
    update = metric.update_state

    def update_state(*args, **kwargs):
        result = update(*args, **kwargs)
        vars(metric).pop("update_state", None)
        if metric not in _seen:
            seen = reductions(metric, args, kwargs)
            if seen is None:
                raise not_mergeable(metric)
            _seen[metric] = seen
        return result

    metric.update_state = update_state


def not_mergeable(metric) -> UserError:
    """The error for a metric whose states on several ranks nobody can make one."""
    return UserError(
        f"metric {metric.name} ({type(metric).__name__}): its states on several ranks cannot be merged, as its "
        "update_state is not seen to only add to them, or to take a maximum, minimum or product; keep sums and counts "
        f"and divide in result(), or give the class an attribute states_reduction ({', '.join(REDUCTIONS)}) or a "
        "method merge_state(metrics)"
    ).agreed()


def _declared(metric, declared) -> tuple[str, ...]:
    names = [variable.name for variable in metric.variables]
    given = [declared.get(name) for name in names] if isinstance(declared, dict) else [declared] * len(names)
    for name, reduction in zip(names, given, strict=True):
        if reduction not in REDUCTIONS:
            raise UserError(
                f"metric {metric.name} ({type(metric).__name__}): states_reduction says {reduction!r} for {name}; it "
                f"may be {', '.join(REDUCTIONS)}, or a dict from {', '.join(names)} to these"
            ).agreed()
    return tuple(str(reduction) for reduction in given)
