"""The optimizer that averages gradients over the ranks before it lets another one apply them."""

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from hpc_train.parallel import wire

_MIB = 2**20


@keras.saving.register_keras_serializable(package="hpc_train")
class DistributedOptimizer(keras.optimizers.Optimizer):
    """Averages the gradients of all ranks, then hands them to `inner_optimizer`.

    It wraps as Keras's own `LossScaleOptimizer` does, and goes around that one, not inside it: overflow must be
    judged on the averaged gradient, or ranks disagree on skipping a step and hang. Gradients travel in buckets of
    one grouped all-reduce each, the last layers' first, since the backward pass has those ready first.

    Args:
        inner_optimizer: any Keras optimizer; it holds the learning rate and all state.
        wire_dtype: None, "float16" or "bfloat16": the type in which float32 gradients travel.
        bucket_mib: MiB of gradients in one grouped all-reduce.

    Raises:
        ValueError: an unknown `wire_dtype`; a bucket size that is not positive.
    """

    def __init__(self, inner_optimizer, wire_dtype: str | None = None, bucket_mib: float = 32.0, name=None):
        super().__init__(learning_rate=0.0, name=name)
        if wire_dtype not in (None, "float16", "bfloat16"):
            raise ValueError(f"wire_dtype must be None, 'float16' or 'bfloat16', not {wire_dtype!r}")
        if bucket_mib <= 0:
            raise ValueError(f"bucket_mib must be positive, not {bucket_mib}")
        self.inner_optimizer = inner_optimizer
        self.wire_dtype = wire_dtype
        self.bucket_mib = bucket_mib

    def build(self, variables):
        self.inner_optimizer.build(variables)
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        """Average `grads` (tensors, IndexedSlices or None) over the ranks and apply them."""
        if _inside_branch():
            raise ValueError(
                "gradients would be averaged inside a LossScaleOptimizer, whose ranks may disagree on overflow and "
                "hang: wrap the other way round, DistributedOptimizer(LossScaleOptimizer(...)), and compile with "
                "auto_scale_loss=False"
            )
        if not self.built:
            with keras.name_scope(self.name):
                self.build(trainable_variables)
            self.built = True
        self.inner_optimizer.apply(self.average(list(grads)), trainable_variables)

    def average(self, grads: list) -> list:
        """The mean over the ranks of each gradient; None stays None, IndexedSlices stay sparse."""
        if hvd.size() == 1:
            return grads
        averaged = list(grads)
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
            if not buckets or grads[i].dtype != dtype or filled + size > self.bucket_mib * _MIB:
                buckets.append([])
                filled, dtype = 0, grads[i].dtype
            buckets[-1].append(i)
            filled += size
        return buckets

    @property
    def variables(self):
        return self.inner_optimizer.variables

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "wire_dtype": self.wire_dtype,
            "bucket_mib": self.bucket_mib,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(config.pop("inner_optimizer"), custom_objects=custom_objects)
        return cls(inner, **config)


def _inside_branch() -> bool:
    return type(tf.compat.v1.get_default_graph()).__name__ == "CondBranchFuncGraph"


def unwrap(optimizer):
    """The optimizer that plain Keras knows: what a `DistributedOptimizer` wraps, or `optimizer` itself."""
    return optimizer.inner_optimizer if isinstance(optimizer, DistributedOptimizer) else optimizer
