"""Cross-entropy of integer classes with label smoothing."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="hpc_train")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of integer classes with label smoothing.

    Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7: the target distribution gives
    smoothing / classes to every class, and 1 - smoothing more to the true one. The loss is called with integer targets
    (batch, ...) and logits (batch, ..., classes) of any float type.

    Args:
        smoothing: from 0 to less than 1; 0.1 in the paper.
        reduction: as in Keras's losses.
        name: of the loss.
    """

    def __init__(self, smoothing: float, reduction="sum_over_batch_size", name="cross_entropy", dtype="float32"):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        surprise = ops.sparse_categorical_crossentropy(ops.cast(y_true, "int32"), y_pred, from_logits=True)
        true = self.cost(surprise)
        if not self.smoothing:
            return true
        uniform = ops.mean(self.cost(-ops.log_softmax(y_pred, axis=-1)), axis=-1)
        return (1 - self.smoothing) * true + self.smoothing * uniform

    def cost(self, surprise):
        """The cost of a class with predicted probability p, from `surprise` = -log p, in the same shape."""
        return surprise

    def plain(self) -> keras.losses.Loss:
        """The nearest loss of Keras itself, for files that load without this package: it has no smoothing."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=self.reduction, name=self.name)

    def get_config(self):
        return {**super().get_config(), "smoothing": self.smoothing}
