"""A check in an optimizer's second step that all ranks train the same weights."""

import horovod.tensorflow as hvd
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel import failure

# Elements of a variable that are compared: enough to see another seed, and cheap in a model of any size.
_ELEMENTS = 2**20


class FirstSteps:
    """Notices ranks that average the gradients of different weights; it costs later steps one comparison of a scalar.

    The first step is not checked: a script may broadcast after it, as Horovod's own examples do, when the optimizer has
    made its variables.

    Args:
        name: the same on every rank.
    """

    def __init__(self, name: str):
        self.name = name
        with tf.init_scope(), tf.device("/cpu:0"):
            self._steps = tf.Variable(0, dtype="int64", trainable=False)

    def check(self, variables, grads) -> None:
        """Call it in every step, eagerly or in a graph, before the step changes `variables`. Collective.

        Args:
            variables: those that the optimizer trains.
            grads: their gradients, of any kind or None; in a graph the check waits for them.

        Raises:
            UserError: eagerly, on every rank, naming variables that differ. From a graph it comes as TensorFlow's
                UnknownError, which `parallel.init` lets end the ranks with the same line.
        """
        if hvd.size() == 1:
            return
        if tf.executing_eagerly():
            if int(self._steps) < 2:
                self._look(variables)
            return
        # Where the data end, TensorFlow still runs what does not depend on them, on some ranks.
        dense = [grad.values if isinstance(grad, tf.IndexedSlices) else grad for grad in grads if grad is not None]
        with tf.control_dependencies(dense):
            tf.cond(self._steps < 2, lambda: self._look(variables), lambda: None)

    def _look(self, variables) -> None:
        steps = self._steps.assign_add(1)
        if tf.executing_eagerly():
            if int(self._steps) == 2:
                self._compare(variables)
        else:
            tf.cond(steps == 2, lambda: self._compare(variables), lambda: None)

    def _compare(self, variables) -> None:
        names = [getattr(variable, "path", variable.name) for variable in variables]
        with tf.device("/cpu:0"):
            mine = tf.stack([_hash(variable) for variable in variables])
            least = hvd.allreduce(tf.concat([mine, -mine], 0), op=hvd.Min, name=f"{self.name}.first_steps")
            differ = tf.not_equal(least[: len(names)], -least[len(names) :])
            if tf.executing_eagerly():
                _complain(names, differ)
            else:
                tf.py_function(lambda found: _complain(names, found), [differ], [])


def _hash(variable) -> tf.Tensor:
    start = tf.reshape(tf.convert_to_tensor(variable), [-1])[:_ELEMENTS]
    return tf.strings.to_hash_bucket_fast(tf.io.serialize_tensor(start), 2**62)


def _complain(names: list[str], differ) -> None:
    wrong = [name for name, found in zip(names, differ.numpy(), strict=True) if found]
    if not wrong:
        return
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    error = UserError(
        f"the ranks train different weights, though their gradients are averaged: {', '.join(wrong[:5])}{more}; give "
        "`fit` callbacks=parallel.callbacks(), or call parallel.broadcast_variables(model) before the first step"
    ).agreed()
    failure.remember(error)
    raise error
