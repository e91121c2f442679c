"""A number that a step computes from results of metrics alone, such as a root or a sum of them."""

from collections.abc import Callable

import tensorflow as tf

# More operations than this are no formula of a few metrics.
_MOST = 200


class Formula:
    """Computes the same number from other results.

    Args:
        operations: of a graph, in their order, between the results and the number.
        results: pairs of a tensor in that graph and the function that gives its value.
        number: the tensor that is computed.
    """

    def __init__(self, operations: list, results: list[tuple], number):
        self.results: list[Callable] = [result for _, result in results]
        self._places = [tensor.name for tensor, _ in results]
        self._number = number.name
        self._graph = tf.compat.v1.GraphDef()
        for tensor, _ in results:
            node = self._graph.node.add(name=tensor.op.name, op="Placeholder")
            node.attr["dtype"].type = tensor.dtype.as_datatype_enum
        for operation in operations:
            node = self._graph.node.add()
            node.CopyFrom(operation.node_def)
            # Control inputs order the updates of this step, which are over.
            node.input[:] = [name for name in operation.node_def.input if not name.startswith("^")]
            node.attr.pop("_class", None)  # beside which operation it ran
        self._compute = tf.function(self._import, autograph=False)

    @classmethod
    def of(cls, number, heard: list[tuple]) -> "Formula | None":
        """The formula of `number`, a tensor of a graph, from the results that were `heard`, or None."""
        results = {tensor.name: (tensor, result) for tensor, result in heard if _graph(tensor) is number.graph}
        used: dict[str, tuple] = {}
        operations: dict[str, tf.Operation] = {}
        waiting = [number]
        while waiting:
            tensor = waiting.pop()
            if tensor.name in results:
                used[tensor.name] = results[tensor.name]
                continue
            operation = tensor.op
            if operation.name in operations:
                continue
            if len(operations) == _MOST or not _computes(operation):
                return None
            operations[operation.name] = operation
            waiting += operation.inputs
        alone = all(tensor.value_index == 0 and tensor.op.name not in operations for tensor, _ in used.values())
        return cls(list(operations.values()), list(used.values()), number) if used and alone else None

    def __call__(self):
        return self._compute([tf.convert_to_tensor(result()) for result in self.results])

    def _import(self, values):
        given = dict(zip(self._places, values, strict=True))
        return tf.graph_util.import_graph_def(self._graph, input_map=given, return_elements=[self._number])[0]


def _graph(tensor):
    return None if hasattr(tensor, "numpy") else tensor.graph


def _computes(operation) -> bool:
    """Whether an operation is a plain function of its inputs."""
    if operation.type == "Placeholder" or operation._is_stateful:
        return False
    return not any(value.HasField("func") for value in operation.node_def.attr.values())
