"""Losses that are an overlap of areas: Dice and Tversky of label maps."""

import keras
from keras import ops

from hpc_train.losses.pixels import counted, plain_cross_entropy


class _OverlapLoss(keras.losses.Loss):
    """One minus an overlap of each class, averaged over all classes.

    As segmentation codes do it, the areas are those in the whole batch of a rank, background is a class like the
    others, and a class that does not occur in the batch adds 0. So the mean over ranks is not the loss of one rank with
    the whole batch, as it is for losses of pixels: give rare classes a batch in which they occur.

    Args:
        ignore_class: a label whose pixels are in no area, as those with a negative label never are.
        reduction: kept for Keras; the loss of a batch is one number.
        name: of the loss.

    Called with targets (batch, height, width) of whole numbers of any type and logits (batch, height, width, classes)
    of any float type.
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
        """Keras's own loss that comes nearest and takes labels and logits: cross-entropy."""
        return plain_cross_entropy(self)

    def get_config(self):
        return {**super().get_config(), "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="hpc_train")
class DiceLoss(_OverlapLoss):
    """1 - 2 |P T| / (|P| + |T|), P the predicted probabilities and T the truth: Milletari et al., "V-Net" (2016),
    section 3, but with sums of probabilities where they have sums of squares, as Keras's `dice` does.

    Arguments and calls as of `_OverlapLoss`.
    """

    def __init__(self, ignore_class=None, reduction="sum_over_batch_size", name="dice", dtype="float32"):
        super().__init__(ignore_class, reduction, name, dtype)

    def of_classes(self, truth, probability, axes):
        return keras.losses.dice(truth, probability, axis=axes)


@keras.saving.register_keras_serializable(package="hpc_train")
class TverskyLoss(_OverlapLoss):
    """1 - |P T| / (|P T| + alpha |P without T| + beta |T without P|): Salehi et al., "Tversky loss function for image
    segmentation using 3D fully convolutional deep networks" (2017); alpha is the price of false positives, beta that of
    false negatives.

    alpha = beta = 0.5 is Dice; their best for rare classes is 0.3 and 0.7. Further arguments and calls as of
    `_OverlapLoss`.
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
        # Not Keras's: its `tversky` (3.15) has alpha and beta the other way round from the paper and its own docstring.
        both = ops.sum(truth * probability, axis=axes)
        false_positives = ops.sum((1 - truth) * probability, axis=axes)
        false_negatives = ops.sum(truth * (1 - probability), axis=axes)
        return 1 - ops.divide_no_nan(both, both + self.alpha * false_positives + self.beta * false_negatives)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
