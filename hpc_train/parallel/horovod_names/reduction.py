"""How `hvd.DistributedOptimizer` and `hvd.DistributedGradientTape` reduce gradients, by Horovod's options."""

import math
from dataclasses import dataclass, field
from typing import Any

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from hpc_train.parallel import wire
from hpc_train.units import MIB

OPS = {hvd.Average: "average", hvd.Sum: "sum", hvd.Adasum: "adasum"}
_BUCKET = 32 * MIB


def key(variable) -> str:
    """What tells a variable from others, whether Keras holds it or not."""
    return (variable.value if isinstance(variable, keras.Variable) else variable)._unique_id


@dataclass(frozen=True)
class Reduction:
    """Options of Horovod's, under its names; see `DistributedOptimizer`.

    Raises:
        ValueError: options that do not go together.
    """

    op: Any = hvd.Average
    compression: Any = hvd.Compression.none
    sparse_as_dense: bool = False
    gradient_predivide_factor: float = 1.0
    groups: Any = None
    process_set: Any = hvd.global_process_set
    scale_local_gradients: bool = True
    device_dense: str = ""
    device_sparse: str = ""
    local: set = field(default_factory=set)
    """Keys of variables whose gradients stay on their rank."""

    def __post_init__(self):
        if self.op not in OPS:
            raise ValueError("op must be hvd.Average, hvd.Sum or hvd.Adasum")
        if self.gradient_predivide_factor != 1.0 and self.op != hvd.Average:
            raise ValueError("gradient_predivide_factor is for op=hvd.Average only")
        groups = self.groups
        if groups is not None and not (isinstance(groups, list) or (isinstance(groups, int) and groups > 0)):
            raise ValueError("groups must be a number above 0, or a list of lists of variables")

    def reduce(self, grads: list, weights: list | None, name: str) -> list:
        """The gradients, reduced over the process set; those of local variables divided by its size, or as they are.

        Collective. Ranks outside the process set get their own.

        Args:
            grads: tensors, IndexedSlices or None, which stays None.
            weights: their variables.
            name: begins the names of the collectives.
        """
        ranks, shared, reduced = self.process_set, [], list(grads)
        if wire.alone(ranks):
            return reduced
        for i, grad in enumerate(grads):
            if grad is None:
                continue
            if self.local and weights is not None and key(weights[i]) in self.local:
                reduced[i] = _divided(grad, ranks) if self.scale_local_gradients else grad
            elif isinstance(grad, tf.IndexedSlices) and not (self.sparse_as_dense or self.op == hvd.Adasum):
                with tf.device(self.device_sparse):
                    reduced[i] = wire.reduce_sparse(grad, f"{name}.sparse.{i}", OPS[self.op], ranks)
            else:
                reduced[i] = tf.convert_to_tensor(grad)
                if weights is not None:
                    reduced[i] = tf.ensure_shape(reduced[i], weights[i].shape)
                shared.append(i)
        with tf.device(self.device_dense):
            for number, group in enumerate(self._groups(shared, reduced, weights)):
                dense = self._reduce_dense([reduced[i] for i in group], f"{name}.group.{number}")
                for i, tensor in zip(group, dense, strict=True):
                    reduced[i] = tensor
        return reduced

    def _groups(self, shared: list[int], grads: list, weights: list | None) -> list[list[int]]:
        """Which gradients travel together: as `groups` says, or in buckets; each of one type, the last layers first."""
        if isinstance(self.groups, list) and weights is not None:
            home = {key(v): number for number, group in enumerate(self.groups) for v in group}
            chosen: dict = {}
            for i in shared:
                chosen.setdefault(home.get(key(weights[i]), ("alone", i)), []).append(i)
            groups = list(chosen.values())
        else:
            number = self.groups if isinstance(self.groups, int) else 1
            size = max(1, -(-len(shared) // number))
            groups = [shared[start : start + size] for start in range(0, len(shared), size)]
        most = _BUCKET if self.groups is None else math.inf
        return [part for group in reversed(groups) for part in wire.buckets(group, grads, most)]

    def _reduce_dense(self, tensors: list, name: str) -> list:
        if self.op == hvd.Adasum:
            return [wire.adasum(tensor, f"{name}.{i}") for i, tensor in enumerate(tensors)]
        reduction, ranks, divide = OPS[self.op], self.process_set, self.gradient_predivide_factor
        if self.compression in (hvd.Compression.none, hvd.Compression.fp16):
            wire_dtype = "float16" if self.compression is hvd.Compression.fp16 else None
            return wire.reduce(tensors, name, wire_dtype, reduction, ranks, divide)
        small, contexts = zip(*[self.compression.compress(tensor) for tensor in tensors], strict=True)
        reduced = wire.reduce(list(small), name, None, reduction, ranks, divide)
        return [self.compression.decompress(t, context) for t, context in zip(reduced, contexts, strict=True)]


def _divided(grad, ranks):
    if isinstance(grad, tf.IndexedSlices):
        return tf.IndexedSlices(grad.values / wire.count(grad.dtype, ranks), grad.indices, grad.dense_shape)
    return grad / wire.count(grad.dtype, ranks)
