"""Rules that change the gradient before an optimizer applies it.

They see what an optimizer sees: gradients averaged over the ranks, without loss scale. A variable without a gradient
does not change. Weights of rank 1 are biases and the scales and shifts of normalisation.
"""

import keras
import tensorflow as tf

from hpc_train.optim.gradients import decayed, norm, scaled, squared_norm
from hpc_train.optim.wrapper import Wrapper


class Rule(Wrapper):
    """A wrapper that passes changed gradients to its inner optimizer; subclasses define `change` or `change_one`."""

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is not None:
            self.build_for(trainable_variables)
        variables = list(trainable_variables or self._trainable_variables)
        self.inner_optimizer.apply(self.change(list(grads), variables), variables)

    def change(self, grads: list, variables: list) -> list:
        """Return the changed gradients of `variables`: tensors, IndexedSlices or None; None stays None."""
        return [g if g is None else self.change_one(g, v) for g, v in zip(grads, variables, strict=True)]

    def change_one(self, grad, variable):
        """Return the changed gradient of one variable."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="hpc_train")
class ClipByGlobalNorm(Rule):
    """Scale all gradients by one factor, so that their joint norm is at most `norm` (Pascanu et al. 2013, section 3.2).

    Args:
        inner_optimizer: applies the gradients.
        norm: the largest Euclidean norm of all gradients together.
    """

    def __init__(self, inner_optimizer, norm: float, name=None):
        super().__init__(inner_optimizer, name=name)
        self.norm = norm

    def change(self, grads, variables):
        squares = [squared_norm(grad) for grad in grads if grad is not None]
        factor = self.norm / tf.maximum(tf.sqrt(tf.add_n(squares)), self.norm) if squares else 1.0
        return [grad if grad is None else scaled(grad, factor) for grad in grads]

    def get_config(self):
        return {**super().get_config(), "norm": self.norm}


@keras.saving.register_keras_serializable(package="hpc_train")
class WeightDecay(Rule):
    """L2 regularisation in the gradient, g + rate * w, for weights of rank 2 and more.

    He et al. (2016) and Goyal et al. (2017, section 3) call this weight decay: it passes through momentum and grows
    with the learning rate. (AdamW's decoupled decay is Keras's own `weight_decay`.)

    Args:
        inner_optimizer: applies the gradients.
        rate: 1e-4 in both papers.
    """

    def __init__(self, inner_optimizer, rate: float, name=None):
        super().__init__(inner_optimizer, name=name)
        self.rate = rate

    def change_one(self, grad, variable):
        return decayed(grad, variable, self.rate) if len(variable.shape) > 1 else grad

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable(package="hpc_train")
class LARC(Rule):
    """Layer-wise adaptive rate control: a layer's rate is min(eta * |w| / |g|, rate), set by a factor on its gradient.

    As in Kurth et al., "Exascale Deep Learning for Climate Analytics" (2018), and its code (ClimDeepLearn), for any
    optimizer. Every variable is a layer, biases included. Unlike LARS it never raises the rate, so it needs no warm-up.

    Args:
        inner_optimizer: applies the gradients, and holds the rate.
        eta: trust, the largest share of its own norm by which plain gradient descent changes a layer in a step.
        epsilon: the layer's rate where |w| or |g| is 0 and the quotient has no meaning.
    """

    def __init__(self, inner_optimizer, eta: float = 0.002, epsilon: float = 1 / 16000, name=None):
        super().__init__(inner_optimizer, name=name)
        self.eta = eta
        self.epsilon = epsilon

    def change_one(self, grad, variable):
        weights, gradient = norm(tf.convert_to_tensor(variable)), norm(grad)
        known = (weights > 0) & (gradient > 0)
        local = tf.where(known, self.eta * weights / tf.where(known, gradient, 1.0), self.epsilon)
        # At rate 0 the quotient is infinite and the factor is 1: no step, and no NaN in the state of an optimizer.
        rate = tf.maximum(tf.cast(self.learning_rate, tf.float32), 1e-37)
        return scaled(grad, tf.minimum(local / rate, 1.0))

    def get_config(self):
        return {**super().get_config(), "eta": self.eta, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="hpc_train")
class LARS(Rule):
    """Layer-wise adaptive rate scaling: a layer's rate is rate * eta * |w| / (|g| + beta * |w|).

    You et al., "Large Batch Training of Convolutional Networks" (2017), algorithm 1, for SGD with momentum: the rule
    includes the decay beta, and passes on trust * (g + beta * w). Weights of rank 1 are neither scaled nor decayed. The
    trust is 1 for a layer whose weights, or whose gradient and decay, are all 0.

    Args:
        inner_optimizer: applies the gradients.
        eta: trust; 0.001 in the paper.
        weight_decay: beta; 0.0005 in the paper.
    """

    def __init__(self, inner_optimizer, eta: float = 0.001, weight_decay: float = 0.0, name=None):
        super().__init__(inner_optimizer, name=name)
        self.eta = eta
        self.beta = weight_decay

    def change_one(self, grad, variable):
        if len(variable.shape) <= 1:
            return grad
        weights, gradient = norm(tf.convert_to_tensor(variable)), norm(grad)
        size = gradient + self.beta * weights
        known = (weights > 0) & (size > 0)
        trust = tf.where(known, self.eta * weights / tf.where(known, size, 1.0), 1.0)
        return scaled(decayed(grad, variable, self.beta) if self.beta else grad, trust)

    def get_config(self):
        return {**super().get_config(), "eta": self.eta, "weight_decay": self.beta}
