"""The optimizer that averages gradients over the ranks before another optimizer applies them."""

from contextlib import contextmanager

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from hpc_train.optim.lag import Waiting
from hpc_train.optim.wrapper import Wrapper
from hpc_train.parallel import wire
from hpc_train.units import MIB


@keras.saving.register_keras_serializable(package="hpc_train")
class DistributedOptimizer(Wrapper):
    """Averages the gradients of all ranks, then hands them to `inner_optimizer`.

    It wraps an optimizer as Keras's own `LossScaleOptimizer` does. It goes around that one, not inside it: overflow
    must be judged on the averaged gradient, or ranks disagree on skipping a step and hang. Gradients travel in buckets,
    one grouped all-reduce each. The last layers' come first, since the backward pass has those ready first.

    With lag 1 a step averages and applies the gradient of the step before (see `optim.lag`): the all-reduces have
    nothing to wait for, and run beside the whole forward and backward pass. The first step only stores its gradient for
    the second, and the gradient of the last step is never applied. An overflow is seen one step late, when the next
    gradient has overflowed too, so the loss scale is halved twice. Sparse gradients become dense.

    Args:
        inner_optimizer: any Keras optimizer; it holds the learning rate and all state.
        wire_dtype: None, "float16" or "bfloat16": the type in which float32 gradients travel.
        bucket_mib: MiB of gradients in one grouped all-reduce.
        lag: steps from a gradient to its use, 0 or 1.
        reduction: "average", or "adasum": `wire.adasum` instead of the mean, layer by layer.

    Raises:
        ValueError: an unknown `wire_dtype`, `lag` or `reduction`; a bucket size that is not positive; adasum with a
            `wire_dtype`.
    """

    def __init__(
        self,
        inner_optimizer,
        wire_dtype: str | None = None,
        bucket_mib: float = 32.0,
        lag: int = 0,
        reduction: str = "average",
        name=None,
    ):
        super().__init__(inner_optimizer, name=name)
        if wire_dtype not in (None, "float16", "bfloat16"):
            raise ValueError(f"wire_dtype must be None, 'float16' or 'bfloat16', not {wire_dtype!r}")
        if bucket_mib <= 0:
            raise ValueError(f"bucket_mib must be positive, not {bucket_mib}")
        if lag not in (0, 1):
            raise ValueError(f"lag must be 0 or 1, not {lag!r}")
        if reduction not in ("average", "adasum"):
            raise ValueError(f"reduction must be 'average' or 'adasum', not {reduction!r}")
        if reduction == "adasum" and wire_dtype:
            raise ValueError(f"adasum takes gradients as they are, not in {wire_dtype}")
        self.wire_dtype = wire_dtype
        self.bucket_mib = bucket_mib
        self.lag = lag
        self.reduction = reduction
        self._waiting: Waiting | None = None
        self._collected: Collected | None = None

    def build(self, variables):
        if not self.built:
            super().build(variables)
            if self.lag:
                self._waiting = Waiting(self, list(variables))

    @property
    def variables(self):
        waiting = [self._waiting.scale, *self._waiting.gradients] if self._waiting else []
        return [*self.inner_optimizer.variables, *waiting]

    @property
    def waiting(self) -> list:
        """With lag 1, variables with this rank's own gradients of the last step, which the next step averages."""
        return self._waiting.gradients if self._waiting else []

    def apply(self, grads, trainable_variables=None):
        """Average `grads` (tensors, IndexedSlices or None) over the ranks and apply them."""
        if self._collected is not None:
            self._collected.take(list(grads), trainable_variables)
            return
        if _inside_branch():
            raise ValueError(
                "gradients would be averaged inside a LossScaleOptimizer, whose ranks may disagree on overflow and "
                "hang: wrap the other way round, DistributedOptimizer(LossScaleOptimizer(...)), and compile with "
                "auto_scale_loss=False"
            )
        self.build_for(trainable_variables)
        grads, weights = list(grads), list(trainable_variables)
        if self._waiting:
            means = self.average(self._waiting.of(weights, grads))
            self._waiting.exchange(means, grads, weights, self.inner_optimizer)
        else:
            self.inner_optimizer.apply(self.average(grads), weights)

    def average_waiting(self) -> None:
        """Replace the waiting gradients by their means over the ranks; the next step's result is the same. Collective.

        Then rank 0's state is the state of all ranks, and a checkpoint of it is complete.
        """
        if hvd.size() > 1 and self.waiting:
            means = self.average([tf.convert_to_tensor(variable) for variable in self.waiting])
            for variable, mean in zip(self.waiting, means, strict=True):
                variable.assign(mean)

    @contextmanager
    def collecting(self):
        """Inside the `with` block `apply` only stores its gradients, in the `Collected` that the block is given."""
        self._collected = Collected()
        try:
            yield self._collected
        finally:
            self._collected = None

    def average(self, grads: list) -> list:
        """The mean over the ranks of each gradient, or its adasum; None stays None.

        IndexedSlices stay sparse in a mean; adasum makes them dense.
        """
        if hvd.size() == 1:
            return grads
        averaged = list(grads)
        if self.reduction == "adasum":
            for i in reversed([i for i, grad in enumerate(grads) if grad is not None]):
                averaged[i] = wire.adasum(tf.convert_to_tensor(grads[i]), f"{self.name}.adasum.{i}")
            return averaged
        dense = []
        for i, grad in enumerate(grads):
            if isinstance(grad, tf.IndexedSlices):
                averaged[i] = wire.average_sparse(grad, f"{self.name}.sparse.{i}")
            elif grad is not None:
                dense.append(i)
        for number, bucket in enumerate(self._buckets(dense, grads)):
            means = wire.average([grads[i] for i in bucket], f"{self.name}.bucket.{number}", self.wire_dtype)
            for i, mean in zip(bucket, means, strict=True):
                averaged[i] = mean
        return averaged

    def _buckets(self, dense: list[int], grads: list) -> list[list[int]]:
        buckets: list[list[int]] = []
        filled, dtype = 0, None
        for i in reversed(dense):
            size = grads[i].dtype.size * grads[i].shape.num_elements()
            if not buckets or grads[i].dtype != dtype or filled + size > self.bucket_mib * MIB:
                buckets.append([])
                filled, dtype = 0, grads[i].dtype
            buckets[-1].append(i)
            filled += size
        return buckets

    def get_config(self):
        own = ("wire_dtype", "bucket_mib", "lag", "reduction")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


class Collected:
    """Gradients of one `apply`, with their variables."""

    def __init__(self):
        self.grads: list = []
        self.variables: list = []

    def take(self, grads: list, variables) -> None:
        """Store them.

        Raises:
            ValueError: for a second `apply`, whose gradients would be lost.
        """
        if self.grads:
            raise ValueError("gradients are accumulated over train steps that apply them once; this one applies twice")
        self.grads, self.variables = grads, list(variables)


def _inside_branch() -> bool:
    return type(tf.compat.v1.get_default_graph()).__name__ == "CondBranchFuncGraph"
