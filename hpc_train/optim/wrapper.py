"""The base of optimizers that wrap another optimizer."""

import keras


class Wrapper(keras.optimizers.Optimizer):
    """An optimizer that changes the gradients or the update of `inner_optimizer`.

    The innermost optimizer holds the learning rate, the step counter and all state that plain Keras knows. Wrappers
    pass these through, so that Keras sees a chain of them as one optimizer.

    Args:
        inner_optimizer: any Keras optimizer, or another wrapper.
    """

    def __init__(self, inner_optimizer, name=None):
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer

    def build(self, variables):
        if not self.built:
            self.inner_optimizer.build(variables)
            super().build(variables)

    def build_for(self, variables) -> None:
        """Build for `variables` if not built yet."""
        if not self.built:
            with keras.name_scope(self.name):
                self.build(list(variables))

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
        return {"name": self.name, "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(config.pop("inner_optimizer"), custom_objects=custom_objects)
        return cls(inner, **config)


def unwrap(optimizer):
    """The innermost optimizer of a chain of wrappers and loss scaling, which plain Keras can save and load."""
    while isinstance(optimizer, (Wrapper, keras.optimizers.LossScaleOptimizer)):
        optimizer = optimizer.inner_optimizer
    return optimizer
