"""A fixed loss scale for float16."""

import keras
import tensorflow as tf

from hpc_train.optim.gradients import scaled
from hpc_train.optim.wrapper import Wrapper


@keras.saving.register_keras_serializable(package="hpc_train")
class StaticLossScale(Wrapper):
    """Multiply the loss by a constant, and its gradients by the inverse before anything else sees them.

    Micikevicius et al., "Mixed Precision Training" (2018), section 3.2; used by Kurth et al. (2018). A step whose
    gradients are not all finite is skipped, as with a dynamic scale, and counted. Inside a `DistributedOptimizer` all
    ranks check the same averages, so they skip together.

    Args:
        inner_optimizer: applies the gradients.
        scale: above 0; a power of 2 loses no bits.

    Attributes:
        skipped: int64 variable, number of skipped steps.
    """

    def __init__(self, inner_optimizer, scale: float, name=None):
        super().__init__(inner_optimizer, name=name)
        self.scale = scale

    def build(self, variables):
        if not self.built:
            self.skipped = self.add_variable((), "zeros", "int64", name="skipped")
            super().build(variables)

    @property
    def variables(self):
        return [*([self.skipped] if self.built else []), *self.inner_optimizer.variables]

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss * tf.cast(self.scale, loss.dtype))

    def apply(self, grads, trainable_variables=None):
        """Apply gradients of the scaled loss: tensors, IndexedSlices or None."""
        if trainable_variables is not None:
            self.build_for(trainable_variables)
        values = [grad.values if isinstance(grad, tf.IndexedSlices) else grad for grad in grads if grad is not None]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in values])

        def apply():
            unscaled = [grad if grad is None else scaled(grad, 1 / self.scale) for grad in grads]
            self.inner_optimizer.apply(unscaled, trainable_variables)

        def skip():
            self.skipped.assign_add(1)

        tf.cond(finite, apply, skip)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}
