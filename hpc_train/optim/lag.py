"""Gradient lag: each step applies the gradient of the step before, so that its way between ranks costs no time."""

import tensorflow as tf

from hpc_train.optim.gradients import scaled


class Waiting:
    """This rank's gradients of the last step, and the loss scale that they carry, until the next step applies them.

    Kurth et al., "Exascale Deep Learning for Climate Analytics" (2018), "Gradient lag":
    w(t+1) = w(t) - rule(mean over ranks of g(w(t-1))).

    Attributes:
        gradients: variables, each with the shape and dtype of its weight.
        scale: variable, a float32 scalar; 0 while there are none.
    """

    def __init__(self, optimizer, weights: list):
        self.gradients = [optimizer.add_variable_from_reference(weight, "waiting") for weight in weights]
        self.scale = optimizer.add_variable((), "zeros", "float32", name="waiting_scale")
        self._of = {id(weight): waiting for weight, waiting in zip(weights, self.gradients, strict=True)}

    def of(self, weights: list, grads: list) -> list:
        """What waits for each of `weights`, a tensor; None where there is no gradient now, and so was none before."""
        return [
            None if grad is None else tf.convert_to_tensor(self._of[id(weight)])
            for weight, grad in zip(weights, grads, strict=True)
        ]

    def exchange(self, means: list, grads: list, weights: list, optimizer) -> None:
        """Let `optimizer` apply `means`, and keep `grads` for the next step.

        Args:
            means: over the ranks, of what `of` gave in this step.
            grads: of this step, with the optimizer's present loss scale; sparse ones become dense.
            weights: the variables that both belong to.
            optimizer: where nothing waits, as in the first step, it is not called: no step of it is counted.
        """
        now, before = optimizer.scale_loss(tf.constant(1.0)), tf.convert_to_tensor(self.scale)

        def apply():
            # The loss scale may have changed since, by a power of 2: the quotient is exact.
            rescaled = [mean if mean is None else scaled(mean, now / before) for mean in means]
            optimizer.apply(rescaled, weights)

        tf.cond(before > 0, apply, lambda: None)
        for weight, grad in zip(weights, grads, strict=True):
            if grad is not None:
                self._of[id(weight)].assign(tf.convert_to_tensor(grad))
        self.scale.assign(now)
