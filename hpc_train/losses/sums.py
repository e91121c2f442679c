"""Sums of losses, such as cross-entropy + Dice."""

import keras


@keras.saving.register_keras_serializable(package="hpc_train")
class SumOfLosses(keras.losses.Loss):
    """The sum of losses of the same targets and logits, with equal shares: Isensee et al., "nnU-Net" (2021), methods.

    Args:
        losses: two or more; their own reduction is not used.
        reduction: of the sum, as Keras's losses have it.
        name: of the loss.
    """

    def __init__(self, losses, reduction="sum_over_batch_size", name="sum", dtype="float32"):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.losses = list(losses)

    def call(self, y_true, y_pred):
        # A loss of areas is one number, which adds to every pixel's and so to their mean.
        return sum(loss.call(y_true, y_pred) for loss in self.losses)

    def plain(self) -> keras.losses.Loss:
        """Keras's own loss that comes nearest to the first part."""
        return self.losses[0].plain()

    def get_config(self):
        return {**super().get_config(), "losses": [keras.saving.serialize_keras_object(loss) for loss in self.losses]}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "losses": keras.saving.deserialize_keras_object(config["losses"])})
