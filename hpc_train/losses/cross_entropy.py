"""Cross-entropy of integer classes with label smoothing."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="hpc_train")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of integer classes with label smoothing: Szegedy et al., "Rethinking the Inception Architecture"
    (2016), section 7.

    The target distribution gives the true class 1 - smoothing, and smoothing / classes to every class, it included.

    Args:
        smoothing: from 0 up to, not including, 1; 0.1 in the paper.
        reduction: as Keras's losses have it.
        name: of the loss.

    Called with targets (batch, ...) of integers and logits (batch, ..., classes) of any float type.
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
        """What a class costs whose predicted probability is p, from -log p; of the same shape."""
        return surprise

    def plain(self) -> keras.losses.Loss:
        """Keras's own loss that comes nearest, for files that load where this package is not: without smoothing."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=self.reduction, name=self.name)

    def get_config(self):
        return {**super().get_config(), "smoothing": self.smoothing}
