"""Augmentation inside the model: layers that act only in training, with seeds that checkpoints store.

Keras's `fit`, `evaluate` and `predict` set this mode; a model that is called directly needs `training=False`.
"""

from keras import KerasTensor, layers

from hpc_train.errors import UserError


def crop_flip(x: KerasTensor) -> KerasTensor:
    """Shift each image by up to an eighth of its side, and flip it left to right with probability one half.

    The standard augmentation of CIFAR (He et al. 2016, section 4.2: 4 zeros padded on each side of 32 pixels, a random
    crop of 32): shifts are whole pixels, all equally likely, and zeros come in at the edges.

    Args:
        x: images (batch, height, width, channels), best normalised, so that 0 is a neutral colour.

    Returns:
        float32 images of the same shape.
    """
    _, height, width, _ = x.shape
    # The nearest whole pixel of a shift in (-4.5, 4.5) is each of -4 ... 4 equally often.
    share = tuple((side // 8 + 0.4999) / side for side in (height, width))
    x = layers.RandomTranslation(
        *share, fill_mode="constant", fill_value=0.0, interpolation="nearest", dtype="float32", name="random_shift"
    )(x)
    return layers.RandomFlip("horizontal", dtype="float32", name="random_flip")(x)


def rand_augment(x: KerasTensor, operations: int = 2, magnitude: float = 0.3) -> KerasTensor:
    """Distort each image by RandAugment (Cubuk et al. 2020) as Keras does it.

    The operations are drawn for each batch, their strengths for each image, and all eleven kinds are computed: this
    costs about as much as a small network.

    Args:
        x: raw images (batch, height, width, 1 or 3 channels), values 0 to 255, of any dtype.
        operations: number of operations in a row (the paper's N).
        magnitude: strength, above 0 and up to 1 (the paper's M over its largest).

    Returns:
        float32 images, values 0 to 255.

    Raises:
        UserError: `operations` or `magnitude` outside its range, or another number of channels.
    """
    # Keras would only report this in the first training step.
    if x.shape[-1] not in (1, 3):
        raise UserError(f"RandAugment needs grey or colour images, with 1 or 3 channels; these have {x.shape[-1]}")
    if operations < 1:
        raise UserError(f"RandAugment with {operations} operations: give at least 1, or leave it out")
    if not 0 < magnitude <= 1:
        raise UserError(f"RandAugment of magnitude {magnitude}: it must be above 0 and at most 1")
    return layers.RandAugment(num_ops=operations, factor=magnitude, dtype="float32", name="rand_augment")(x)
