"""Losses that are an overlap of areas: Dice and Tversky of label maps."""

import keras
from keras import ops

from hpc_train.losses.pixels import counted, plain_cross_entropy


class _OverlapLoss(keras.losses.Loss):
    """One minus an overlap of each class, averaged over all classes.

    As in other segmentation codes, the areas are those in the whole batch of a rank, background is a class like the
    others, and a class that does not occur in the batch adds 0. So, unlike for losses of pixels, the mean over ranks is
    not the loss of one rank with the whole batch: choose batches large enough to hold rare classes. The loss is called
    with targets (batch, height, width), whole numbers of any type, and logits (batch, height, width, classes) of any
    float type.

    Args:
        ignore_class: a label whose pixels are in no area; pixels with a negative label are never in one.
        reduction: kept for Keras; the loss of a batch is one number.
        name: of the loss.
    """

    def __init__(self, ignore_class: int | None, reduction, name: str, dtype):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.ignore_class = ignore_class

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        counts = counted(labels, self.ignore_class)
        truth = ops.one_hot(ops.where(counts, labels, -1), y_pred.shape[-1], dtype=self.dtype)
        probability = ops.softmax(y_pred, axis=-1) * ops.cast(counts, self.dtype)[..., None]
        axes = tuple(range(len(labels.shape)))
        occurs = ops.any(truth > 0, axis=axes)
        return ops.mean(ops.where(occurs, self.of_classes(truth, probability, axes), 0.0))

    def of_classes(self, truth, probability, axes: tuple[int, ...]):
        """The loss of each class, (classes,), of areas (batch, height, width, classes)."""
        raise NotImplementedError

    def plain(self) -> keras.losses.Loss:
        """The nearest loss of Keras itself that takes labels and logits: cross-entropy."""
        return plain_cross_entropy(self)

    def get_config(self):
        return {**super().get_config(), "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="hpc_train")
class DiceLoss(_OverlapLoss):
    """Dice loss: 1 - 2 |P T| / (|P| + |T|), where P are the predicted probabilities and T is the truth.

    Milletari et al., "V-Net" (2016), section 3, but with sums of probabilities instead of their sums of squares, as in
    Keras's `dice`. Arguments and calls are those of `_OverlapLoss`.
    """

    def __init__(self, ignore_class=None, reduction="sum_over_batch_size", name="dice", dtype="float32"):
        super().__init__(ignore_class, reduction, name, dtype)

    def of_classes(self, truth, probability, axes):
        return keras.losses.dice(truth, probability, axis=axes)


@keras.saving.register_keras_serializable(package="hpc_train")
class TverskyLoss(_OverlapLoss):
    """Tversky loss: 1 - |P T| / (|P T| + alpha |P without T| + beta |T without P|), with P and T as in `DiceLoss`.

    Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep networks" (2017).

    Args:
        alpha: weight of false positives; 0.3 is the paper's best for rare classes. alpha = beta = 0.5 is Dice.
        beta: weight of false negatives; 0.7 is the paper's best.
        ignore_class, reduction, name: see `_OverlapLoss`, which also says how the loss is called.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        ignore_class=None,
        reduction="sum_over_batch_size",
        name="tversky",
        dtype="float32",
    ):
        super().__init__(ignore_class, reduction, name, dtype)
        self.alpha, self.beta = alpha, beta

    def of_classes(self, truth, probability, axes):
        # Not Keras's `tversky` (3.15), which swaps alpha and beta compared with the paper and with its own docstring.
        both = ops.sum(truth * probability, axis=axes)
        false_positives = ops.sum((1 - truth) * probability, axis=axes)
        false_negatives = ops.sum(truth * (1 - probability), axis=axes)
        return 1 - ops.divide_no_nan(both, both + self.alpha * false_positives + self.beta * false_negatives)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
