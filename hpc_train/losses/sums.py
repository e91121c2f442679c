"""Sums of losses, such as cross-entropy + Dice."""

import keras


@keras.saving.register_keras_serializable(package="hpc_train")
class SumOfLosses(keras.losses.Loss):
    """The sum of losses of the same targets and logits, with equal weights: Isensee et al., "nnU-Net" (2021), methods.

    Args:
        losses: two or more; their own reductions are not used.
        reduction: of the sum, as in Keras's losses.
        name: of the loss.
    """

    def __init__(self, losses, reduction="sum_over_batch_size", name="sum", dtype="float32"):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.losses = list(losses)

    def call(self, y_true, y_pred):
        # A loss of areas is one number; it is added to the loss of every pixel, and so to their mean.
        return sum(loss.call(y_true, y_pred) for loss in self.losses)

    def plain(self) -> keras.losses.Loss:
        """The nearest loss of Keras itself to the first part."""
        return self.losses[0].plain()

    def get_config(self):
        return {**super().get_config(), "losses": [keras.saving.serialize_keras_object(loss) for loss in self.losses]}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "losses": keras.saving.deserialize_keras_object(config["losses"])})
