"""Horovod in place of tf.distribute: a strategy that is left in a script is found by name."""

import tensorflow as tf

from hpc_train.errors import UserError


def refuse_strategy(variables=()) -> None:
    """Check that no strategy of tf.distribute takes part, now or when `variables` were made.

    Args:
        variables: Keras or TensorFlow variables.

    Raises:
        UserError: a strategy is in force, or has made one of the variables.
    """
    name = type(tf.distribute.get_strategy()).__name__ if tf.distribute.has_strategy() else None
    for variable in variables:
        inner = getattr(variable, "_value", variable)
        if name is None and isinstance(inner, tf.distribute.DistributedValues):
            strategy = getattr(inner, "distribute_strategy", None)
            name = type(strategy).__name__ if strategy is not None else "a strategy"
    if name:
        raise UserError(
            f"this runs under tf.distribute ({name}), which shares out GPUs by itself: leave out the strategy and its "
            "scope; under Horovod each GPU has a process of its own"
        ).agreed()
