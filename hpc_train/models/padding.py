"""Images of any size for networks that halve and double: padded at the entrance, cropped before the last layer."""

from keras import KerasTensor, layers


def padded(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The least (height, width) that hold the image and divide by `multiple`."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def notice(height: int | None, width: int | None, multiple: int) -> str | None:
    """What to tell the user of an image's size, such as "181 x 360 padded to 192 x 368"; None if nothing is padded."""
    if height is None or width is None or padded(height, width, multiple) == (height, width):
        return None
    return "{} x {} padded to {} x {}".format(height, width, *padded(height, width, multiple))


def pad(x: KerasTensor, multiple: int) -> tuple[KerasTensor, tuple[tuple[int, int], tuple[int, int]]]:
    """(x padded by zeros, margins): half on either side, the odd row or column at the end.

    Zero is a channel's mean where the data are normalised by mean and deviation.

    Args:
        x: (batch, height, width, channels). A side of unknown length is left as it is: it must divide by `multiple`
            when the model is called.
        multiple: what height and width must divide by.

    Returns:
        x: (batch, padded height, padded width, channels).
        margins: ((top, bottom), (left, right)) in pixels, for `crop`.
    """
    margins = tuple(_halves(-side % multiple if side else 0) for side in x.shape[1:3])
    if any(map(any, margins)):
        x = layers.ZeroPadding2D(margins, name="pad")(x)
    return x, margins


def crop(x: KerasTensor, margins: tuple[tuple[int, int], tuple[int, int]]) -> KerasTensor:
    """x (batch, padded height, padded width, channels) without the margins that `pad` has added."""
    return layers.Cropping2D(margins, name="crop")(x) if any(map(any, margins)) else x


def _halves(number: int) -> tuple[int, int]:
    return number // 2, number - number // 2
