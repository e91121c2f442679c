"""The MNIST family: small classifiers of small images, from one dense layer to a residual and a recurrent network."""

from keras import Input, Model, Sequential, layers, ops

from hpc_train.errors import UserError


def build(name: str, input_shape: tuple[int, ...], input_dtype: str, classes: int, augment: bool = False) -> Model:
    """Build a classifier that takes images as they are stored and returns logits.

    Args:
        name: one of `FAMILY`.
        input_shape: (height, width, channels).
        input_dtype: the model scales "uint8" images from 0..255 to 0..1; it uses other numbers as they are.
        classes: number of classes.
        augment: shift, rotate and zoom the images during training.

    Returns:
        A model from (batch, height, width, channels) to float32 logits (batch, classes).

    Raises:
        UserError: the data are not images, or are too small for the network.
    """
    if len(input_shape) != 3:
        raise UserError(f"the MNIST networks take images (height, width, channels); the data have {input_shape}")
    if min(input_shape[:2]) < 8:
        raise UserError(f"the MNIST networks take images of at least 8 x 8; the data have {input_shape}")
    inputs = Input(input_shape, dtype=input_dtype)
    if input_dtype == "uint8":
        x = layers.Rescaling(1 / 255)(inputs)
    else:
        x = inputs if "float" in input_dtype else ops.cast(inputs, "float32")
    if augment:
        x = augmentation()(x)
    x = FAMILY[name](x)
    return Model(inputs, layers.Dense(classes, dtype="float32", name="logits")(x), name=name)


def augmentation() -> Sequential:
    """Small shifts, rotations and zooms; the identity outside training."""
    return Sequential(
        [
            layers.RandomTranslation(0.08, 0.08, fill_mode="constant"),
            layers.RandomRotation(0.03, fill_mode="constant"),
            layers.RandomZoom(0.08, fill_mode="constant"),
        ],
        name="augmentation",
    )


def fc(x):
    """One dense layer of 64 units."""
    return layers.Dense(64, activation="relu")(layers.Flatten()(x))


def cnn(x):
    """Conv 32, pool, dense 100."""
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    return layers.Dense(100, activation="relu")(layers.Flatten()(x))


def deep(x):
    """Conv 32, conv 64, pool, dense 128."""
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    return layers.Dense(128, activation="relu")(layers.Flatten()(x))


def dropout(x):
    """`deep` with dropout of 0.25 after the pool and 0.5 after the dense layer."""
    x = layers.Conv2D(32, 3, activation="relu")(x)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(layers.Dropout(0.25)(x))
    return layers.Dropout(0.5)(layers.Dense(128, activation="relu")(x))


def batchnorm(x):
    """`deep` with batch normalisation after each convolution, the pool and the dense layer."""
    for filters in (32, 64):
        x = layers.BatchNormalization()(layers.Conv2D(filters, 3, activation="relu")(x))
    x = layers.BatchNormalization()(layers.MaxPooling2D()(x))
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    return layers.BatchNormalization()(x)


def residual(x):
    """15 residual layers, five each of 16, 32 and 64 filters, at full, half and quarter resolution.

    Each adds the convolution of its normalised, rectified input to that input: the pre-activation unit of
    He et al., "Identity Mappings in Deep Residual Networks" (2016), section 4, with one convolution.
    """
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(x)
    for stage, filters in enumerate((16, 32, 64)):
        if stage:
            x = layers.Conv2D(filters, 1, strides=2, use_bias=False, name=f"down{stage}")(x)
        for unit in range(5):
            y = layers.Activation("relu")(layers.BatchNormalization()(x))
            y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"residual{stage * 5 + unit + 1}")(y)
            x = layers.Add()([x, y])
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    return layers.GlobalAveragePooling2D()(x)


def lstm(x):
    """Four LSTM layers of 64 units, which read an image row by row; the last state of the last layer."""
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width * channels))(x)
    for layer in range(4):
        x = layers.LSTM(64, return_sequences=layer < 3)(x)
    return x


FAMILY = {f.__name__: f for f in (fc, cnn, deep, dropout, batchnorm, residual, lstm)}
