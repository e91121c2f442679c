"""Wrappers that change the update itself, not the gradient."""

from fnmatch import fnmatchcase

import keras
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.optim.ema import averages
from hpc_train.optim.wrapper import Wrapper, unwrap


@keras.saving.register_keras_serializable(package="hpc_train")
class RateMultipliers(Wrapper):
    """Give some variables their own learning rate, a multiple of the optimizer's.

    The change that the inner optimizer makes to such a variable is multiplied: w = old + factor * (new - old). This is
    exact for every optimizer, also for those (Adam, LAMB) that a factor on the gradient would not slow down; decoupled
    weight decay is multiplied too.

    Args:
        inner_optimizer: the Keras optimizer.
        factors: the factor for each pattern of the variable's path, or of its end from a layer on, for example
            {"stage1*": 0.1, "logits/*": 10}; the first pattern that matches is used.

    Raises:
        UserError: when it is built, if a pattern matches no variable.
    """

    def __init__(self, inner_optimizer, factors: dict[str, float], name=None):
        super().__init__(inner_optimizer, name=name)
        self.factors = dict(factors)

    def build(self, variables):
        for pattern in self.factors:
            if not any(_fits(variable, pattern) for variable in variables):
                layers = ", ".join(dict.fromkeys(variable.path.rpartition("/")[0] for variable in variables))
                raise UserError(f"no trainable weight matches {pattern!r}; the model has {layers}").agreed()
        super().build(variables)

    def factor(self, variable) -> float:
        """The factor for the rate of `variable`."""
        matches = (factor for pattern, factor in self.factors.items() if _fits(variable, pattern))
        return next(matches, 1.0)

    def apply(self, grads, trainable_variables=None):
        """Apply gradients: tensors, IndexedSlices or None."""
        if trainable_variables is not None:
            self.build_for(trainable_variables)
        variables = list(trainable_variables or self._trainable_variables)
        chosen = [v for v, g in zip(variables, grads, strict=True) if g is not None and self.factor(v) != 1]
        old = [tf.identity(variable.value) for variable in chosen]
        pairs = {id(variable): average for variable, average in averages(self)}
        # As in Keras: the first step's weights are the first averages.
        kept = tf.where(tf.equal(self.iterations, 0), 0.0, unwrap(self).ema_momentum)
        self.inner_optimizer.apply(grads, variables)
        for variable, before in zip(chosen, old, strict=True):
            new = tf.identity(variable.value)
            variable.assign(before + self.factor(variable) * (new - before))
            if pairs:
                # The inner optimizer has added its own new weights to the average.
                pairs[id(variable)].assign_add((1 - kept) * (variable.value - new))

    def get_config(self):
        return {**super().get_config(), "factors": dict(self.factors)}


def _fits(variable, pattern: str) -> bool:
    # A layer inside another model has that model's name before its own.
    return fnmatchcase(f"/{variable.path}", f"*/{pattern}")


@keras.saving.register_keras_serializable(package="hpc_train")
class DecayMatricesOnly(Wrapper):
    """Exclude weights of rank 1 (biases, normalisation) from a Keras optimizer's own decoupled weight decay.

    Args:
        inner_optimizer: a Keras optimizer with `weight_decay`.
    """

    def build(self, variables):
        vectors = [variable for variable in variables if len(variable.shape) <= 1]
        self.inner_optimizer.exclude_from_weight_decay(var_list=vectors)
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is not None:
            self.build_for(trainable_variables)
        self.inner_optimizer.apply(grads, trainable_variables)
