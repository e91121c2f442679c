"""`backward_passes_per_step`: gradients of several batches are added up before they are reduced and applied."""

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from hpc_train.optim.wrapper import unwrap
from hpc_train.parallel import wire
from hpc_train.parallel.horovod_names.reduction import key
from hpc_train.parallel.optimizer import swap_class


class Passes:
    """Sums of this rank's gradients, and how many batches are in them.

    Args:
        number: batches in a step.
        mean: divide the sums by it.

    Attributes:
        counter: int32 variable, batches since the last step.
    """

    def __init__(self, number: int, mean: bool):
        self.number = number
        self.mean = mean
        with tf.init_scope():
            self.counter = tf.Variable(0, trainable=False)
        self._sums: dict[str, tf.Variable] = {}

    def add(self, grads: list, weights: list, reduce) -> list:
        """Add this batch's gradients; in every n-th call reduce the sums, and begin anew.

        Args:
            grads: tensors, IndexedSlices (which become dense) or None.
            weights: their variables.
            reduce: function of sums and variables: the sums over the ranks. Collective.

        Returns:
            The reduced sums, or before the n-th call the sums of this rank; None stays None.

        Raises:
            ValueError: none of the variables is one of earlier calls, whose batches would be counted with these.
        """
        if self._sums and not any(key(weight) in self._sums for weight in weights):
            raise ValueError(
                "backward_passes_per_step counts the batches of one set of variables: give each set of variables an "
                "optimizer of its own"
            )
        present = [i for i, grad in enumerate(grads) if grad is not None]
        sums = [self._sum(weights[i], grads[i].dtype) for i in present]
        totals: list = [None] * len(grads)
        for i, total in zip(present, sums, strict=True):
            totals[i] = total.assign_add(tf.convert_to_tensor(grads[i]), read_value=True)
        count = self.counter.assign_add(1, read_value=True)

        def whole():
            reduced = reduce([tf.identity(total) if total is not None else None for total in totals], weights)
            reduced = [reduced[i] / self.number if self.mean else tf.identity(reduced[i]) for i in present]
            with tf.control_dependencies(reduced):
                for total in sums:
                    total.assign(tf.zeros_like(total))
                self.counter.assign(0)
            return reduced

        chosen = tf.cond(tf.equal(count, self.number), whole, lambda: [tf.identity(totals[i]) for i in present])
        result: list = [None] * len(totals)
        for i, total in zip(present, chosen, strict=True):
            result[i] = total
        return result

    def sums(self, weights: list) -> list:
        """A variable for each weight, with the sum of this rank's gradients since the last step."""
        return [self._sum(weight, tf.as_dtype(weight.dtype)) for weight in weights]

    def average(self, weights: list, ranks: hvd.ProcessSet) -> None:
        """Replace the sums by their means over `ranks`; the next step's result is the same. Collective."""
        if wire.alone(ranks) or not int(self.counter):
            return
        for i, total in enumerate(self.sums(weights)):
            mean = wire.reduce([tf.convert_to_tensor(total)], f"hpc_train.passes.{i}", ranks=ranks)
            total.assign(mean[0])

    def _sum(self, weight, dtype: tf.DType) -> tf.Variable:
        if key(weight) not in self._sums:
            with tf.init_scope():
                self._sums[key(weight)] = tf.Variable(tf.zeros(weight.shape, dtype), trainable=False)
        return self._sums[key(weight)]

    def every_nth(self, apply, count) -> None:
        """After `add`: call `apply` if it has reduced the sums, else `count`."""

        def done(function):
            function()
            return tf.constant(0)

        tf.cond(tf.equal(self.counter, 0), lambda: done(apply), lambda: done(count))


def counting_updates(optimizer, number: int) -> None:
    """Let the innermost optimizer of a chain count updates, not batches, in rules such as Adam's."""
    inner = unwrap(optimizer)
    if inner is optimizer:
        return
    plain = type(inner)

    def iterations(self):
        steps = plain.iterations.fget(self)
        return keras.ops.floor_divide(steps, number) if optimizer._state.updating else steps

    swap_class(inner, plain, (plain,), {"iterations": property(iterations)})
