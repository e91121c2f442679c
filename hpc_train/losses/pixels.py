"""Losses that are a mean over pixels, each weighted by its class: cross-entropy and focal loss of label maps."""

import keras
from keras import ops

from hpc_train.losses.cross_entropy import SmoothedCrossEntropy


def counted(labels, ignore_class: int | None):
    """Whether each pixel counts, bool in the shape of `labels`: not those of `ignore_class` or below 0."""
    some = labels >= 0
    return some if ignore_class is None else ops.logical_and(some, labels != ignore_class)


@keras.saving.register_keras_serializable(package="hpc_train")
class PixelCrossEntropy(SmoothedCrossEntropy):
    """Cross-entropy of label maps, weighted by the true class of the pixel: Kurth et al. 2018, section V-B.

    The sum over pixels is divided by their number, ignored ones included, and not by the sum of their weights. So the
    mean over equal batches is the loss of all of them together, and the gradients of ranks average to the gradient of
    one rank with the whole batch. `options.normalised` gives weights whose mean over a data set's pixels is 1. The loss
    is called with targets (batch, height, width), whole numbers of any type, and logits (batch, height, width, classes)
    of any float type.

    Args:
        class_weights: one for each class; None weights all equally.
        smoothing: of the labels, see `SmoothedCrossEntropy`.
        ignore_class: a label whose pixels do not count; pixels with a negative label never count.
        reduction: as in Keras's losses.
        name: of the loss.
    """

    def __init__(
        self,
        class_weights=None,
        smoothing: float = 0.0,
        ignore_class: int | None = None,
        reduction="sum_over_batch_size",
        name="cross_entropy",
        dtype="float32",
    ):
        super().__init__(smoothing, reduction, name, dtype)
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]
        self.ignore_class = ignore_class

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        counts = counted(labels, self.ignore_class)
        labels = ops.where(counts, labels, 0)
        losses = super().call(labels, y_pred)
        if self.class_weights is not None:
            losses = losses * ops.take(ops.convert_to_tensor(self.class_weights, dtype=self.dtype), labels)
        return ops.where(counts, losses, 0.0)

    def plain(self) -> keras.losses.Loss:
        """The nearest loss of Keras itself: cross-entropy without weights and smoothing."""
        return plain_cross_entropy(self)

    def get_config(self):
        return {**super().get_config(), "class_weights": self.class_weights, "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="hpc_train")
class FocalLoss(PixelCrossEntropy):
    """Focal loss of label maps: (1 - p)^gamma times the cross-entropy.

    Lin et al., "Focal Loss for Dense Object Detection" (2017), equation 5, with softmax instead of their sigmoid and
    class weights instead of their alpha. With label smoothing each class's term of the sum is focal, as in Keras's
    `CategoricalFocalCrossentropy`. The loss is called like `PixelCrossEntropy`.

    Args:
        gamma: 0 or more; 0 is the cross-entropy, 2 the paper's best.
        class_weights, smoothing, ignore_class, reduction, name: see `PixelCrossEntropy`.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        class_weights=None,
        smoothing: float = 0.0,
        ignore_class: int | None = None,
        reduction="sum_over_batch_size",
        name="focal",
        dtype="float32",
    ):
        super().__init__(class_weights, smoothing, ignore_class, reduction, name, dtype)
        self.gamma = gamma

    def cost(self, surprise):
        # From -log p without the rounding of 1 - p; a power below 1 has no derivative at 0.
        missing = ops.maximum(-ops.expm1(-surprise), 1e-12)
        return surprise * missing**self.gamma

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma}


def plain_cross_entropy(loss) -> keras.losses.Loss:
    """Keras's cross-entropy of logits; it ignores one label, that of `loss`, or -1 if `loss` has none."""
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True,
        ignore_class=-1 if loss.ignore_class is None else loss.ignore_class,
        reduction=loss.reduction,
        name=loss.name,
    )
