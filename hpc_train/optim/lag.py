"""Gradient lag: each step applies the gradient of the step before, so that averaging it costs no time."""

import keras
import tensorflow as tf

from hpc_train.optim.gradients import scaled


class Waiting:
    """This rank's gradients of the last step, and their loss scale, until the next step applies them.

    Kurth et al., "Exascale Deep Learning for Climate Analytics" (2018), "Gradient lag":
    w(t+1) = w(t) - rule(mean over ranks of g(w(t-1))).

    Attributes:
        gradients: variables, each with the shape and dtype of its weight.
        scale: variable, a float32 scalar; 0 if no gradients wait.
    """

    def __init__(self, weights: list):
        with keras.name_scope("distributed_optimizer"):
            self.gradients = [
                keras.Variable(
                    tf.zeros(weight.shape, weight.dtype),
                    dtype=weight.dtype,
                    trainable=False,
                    name=f"{getattr(weight, 'path', weight.name).replace('/', '_').replace(':', '_')}_waiting",
                )
                for weight in weights
            ]
            self.scale = keras.Variable(0.0, dtype="float32", trainable=False, name="waiting_scale")
        self._of = {id(weight): waiting for weight, waiting in zip(weights, self.gradients, strict=True)}

    def of(self, weights: list, grads: list) -> list:
        """The waiting gradient of each of `weights`, a tensor; None if it has no gradient, now and before."""
        return [
            None if grad is None else tf.convert_to_tensor(self._of[id(weight)])
            for weight, grad in zip(weights, grads, strict=True)
        ]

    def exchange(self, means: list, grads: list, weights: list, scale_loss, apply) -> None:
        """Apply `means`, and keep `grads` for the next step.

        Args:
            means: the results of `of` in this step, averaged over the ranks.
            grads: of this step, with the optimizer's current loss scale; sparse gradients become dense.
            weights: the variables of both.
            scale_loss: of the optimizer.
            apply: of the optimizer. It is not called, and counts no step, if nothing waits, as in the first step.
        """
        now, before = scale_loss(tf.constant(1.0)), tf.convert_to_tensor(self.scale)

        def apply_rescaled():
            # The loss scale may have changed since then, by a power of 2, so the quotient is exact.
            apply([mean if mean is None else scaled(mean, now / before) for mean in means], weights)

        tf.cond(before > 0, apply_rescaled, lambda: None)
        for weight, grad in zip(weights, grads, strict=True):
            if grad is not None:
                self._of[id(weight)].assign(tf.convert_to_tensor(grad))
        self.scale.assign(now)
