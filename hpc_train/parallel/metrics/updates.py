"""What a metric's `update_state` does to its states, read from TensorFlow's graph of it."""

import keras
import tensorflow as tf

# Operations that hand their first input on.
_SAME = ("Identity", "StopGradient", "PreventGradient", "EnsureShape", "CheckNumerics")
_COMMUTATIVE = {
    **{"Add": "sum", "AddV2": "sum", "AddN": "sum", "Mul": "product"},
    **{"Maximum": "max", "Minimum": "min", "LogicalOr": "max", "LogicalAnd": "min"},
}
# Only the first input may be the state.
_ONE_SIDED = {"Sub": "sum", "TensorScatterAdd": "sum", "TensorScatterSub": "sum"} | {
    "TensorScatterMax": "max",
    "TensorScatterMin": "min",
}


def reductions(metric, args, kwargs) -> tuple[str, ...] | None:
    """The reduction with which each of a metric's states takes in what an update brings.

    A state is a sum if its new value is the old one plus something that depends on no state; and so on. Then the states
    of several ranks can be merged by the same operation, whatever the data are.

    Args:
        metric: with its variables built.
        args: one call's arguments of `update_state`, tensors or others.
        kwargs: as args.

    Returns:
        "sum", "max", "min" or "product" for each variable; None where an update does anything else, or cannot be seen.
    """
    try:
        with tf.init_scope():
            graph, before, after = _traced(metric, args, kwargs)
    except Exception:
        return None
    if not before or any(op.type.startswith(("Assign", "PyFunc", "EagerPyFunc")) for op in graph.get_operations()):
        return None  # state of its own beside Keras's variables
    walk = _Walk(before)
    found = [walk.reduction(new, old) for new, old in zip(after, before, strict=True)]
    if any(reduction is None for reduction in found):
        return None
    return tuple("sum" if reduction == "same" else str(reduction) for reduction in found)


def _traced(metric, args, kwargs):
    """A graph of one update; in it, the states before and after."""
    flat = keras.tree.flatten((args, kwargs))
    places = [i for i, part in enumerate(flat) if tf.is_tensor(part)]

    def update(states, inputs):
        filled = list(flat)
        for place, tensor in zip(places, inputs, strict=True):
            filled[place] = tensor
        args_, kwargs_ = keras.tree.pack_sequence_as((args, kwargs), filled)
        return [tf.convert_to_tensor(new) for new in metric.stateless_update_state(states, *args_, **kwargs_)]

    before = [tf.TensorSpec(variable.shape, variable.dtype) for variable in metric.variables]
    inputs = [tf.type_spec_from_value(flat[place]) for place in places]
    graph = tf.function(update, autograph=False).get_concrete_function(before, inputs).graph
    return graph, graph.inputs[: len(before)], graph.outputs


class _Walk:
    """From new states back to old ones."""

    def __init__(self, states):
        self.states = {state.name for state in states}
        self._depends: dict[str, bool] = {}

    def reduction(self, tensor, state) -> str | None:
        """How `tensor` comes from `state`: "same", a reduction, or None for anything else."""
        if tensor.name == state.name:
            return "same"
        operation, inputs = tensor.op.type, list(tensor.op.inputs)
        if operation in _SAME:
            return self.reduction(inputs[0], state)
        if operation == "Cast" and tensor.dtype.is_floating == inputs[0].dtype.is_floating:
            return self.reduction(inputs[0], state)
        if operation in ("Select", "SelectV2") and not self.depends(inputs[0]):
            return self._both([self.reduction(branch, state) for branch in inputs[1:]])
        if operation in _COMMUTATIVE:
            old = [part for part in inputs if self.depends(part)]
            return self._both([_COMMUTATIVE[operation], self.reduction(old[0], state)]) if len(old) == 1 else None
        if operation in _ONE_SIDED and not any(self.depends(part) for part in inputs[1:]):
            return self._both([_ONE_SIDED[operation], self.reduction(inputs[0], state)])
        return None

    def depends(self, tensor) -> bool:
        """Whether `tensor` is computed from any state."""
        if tensor.name in self.states:
            return True
        if tensor.name not in self._depends:
            self._depends[tensor.name] = any(self.depends(part) for part in tensor.op.inputs)
        return self._depends[tensor.name]

    @staticmethod
    def _both(found: list) -> str | None:
        kinds = set(found) - {"same"}
        return "same" if not kinds else kinds.pop() if len(kinds) == 1 else None
