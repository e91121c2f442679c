"""Images of any size for networks that halve and double them: pad at the entrance, crop before the last layer."""

from keras import KerasTensor, layers


def padded(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The smallest (height, width) that hold the image and are multiples of `multiple`."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def notice(height: int | None, width: int | None, multiple: int) -> str | None:
    """A note for the user, such as "181 x 360 padded to 192 x 368"; None if nothing is padded."""
    if height is None or width is None or padded(height, width, multiple) == (height, width):
        return None
    return "{} x {} padded to {} x {}".format(height, width, *padded(height, width, multiple))


def pad(x: KerasTensor, multiple: int) -> tuple[KerasTensor, tuple[tuple[int, int], tuple[int, int]]]:
    """Pad images by zeros: half on either side, the odd row or column at the end.

    Zero is a channel's mean if the data are normalised by mean and standard deviation.

    Args:
        x: (batch, height, width, channels). A side of unknown length is not padded: it must be a multiple of
            `multiple` when the model is called.
        multiple: the padded height and width are multiples of it.

    Returns:
        x: (batch, padded height, padded width, channels).
        margins: ((top, bottom), (left, right)) in pixels, for `crop`.
    """
    margins = tuple(_halves(-side % multiple if side else 0) for side in x.shape[1:3])
    if any(map(any, margins)):
        x = layers.ZeroPadding2D(margins, name="pad")(x)
    return x, margins


def crop(x: KerasTensor, margins: tuple[tuple[int, int], tuple[int, int]]) -> KerasTensor:
    """Remove the margins that `pad` added from x (batch, padded height, padded width, channels)."""
    return layers.Cropping2D(margins, name="crop")(x) if any(map(any, margins)) else x


def _halves(number: int) -> tuple[int, int]:
    return number // 2, number - number // 2
