"""Residual networks for CIFAR and for ImageNet, versions 1 and 2.

v1: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), section 3.3 (ImageNet, Table 1), section 4.2
(CIFAR). v2: He et al., "Identity Mappings in Deep Residual Networks" (ECCV 2016), section 4 and appendix. As in the
authors' published code, a bottleneck halves the resolution in its 3x3 convolution ("v1.5"), strided convolutions are
padded equally on both sides, batch normalisation has momentum 0.9 and epsilon 1e-5, and kernels start from a normal
distribution of variance 2 / fan-out (He et al., "Delving Deep into Rectifiers", 2015, Eq. 14).

Layers are named by their place, `stem_conv` ... `stage2_block1_conv1` ... `logits`: patterns like `stage1*` name parts.
"""

import difflib
import re

from keras import KerasTensor, Model, initializers, layers

from hpc_train.errors import UserError

# Blocks in each stage, and whether a block is a bottleneck (Table 1 of v1; 200 is of v2).
IMAGENET = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
    200: ((3, 24, 36, 3), True),
}
CIFAR = (8, 14, 20, 32, 44, 56, 110)
FAMILY = tuple(f"resnet{depth}{version}" for version in ("", "v2") for depth in (*CIFAR, *IMAGENET))


def build(
    name: str, inputs: KerasTensor, x: KerasTensor, classes: int, shortcut: str | None = None, zero_gamma: bool = False
) -> Model:
    """Build a residual network that returns logits.

    Args:
        name: one of `FAMILY`; or `resnetN` or `resnetNv2` with any N = 6n + 2 that is not a depth of `IMAGENET`: the
            CIFAR network of that depth.
        inputs: what the model takes.
        x: what the network's first convolution takes: (batch, height, width, channels), normalised.
        classes: number of classes.
        shortcut: where a block widens, "A" pads the shortcut with zero channels and "B" projects it by a 1x1
            convolution; by default the papers' choice, A for CIFAR and B for ImageNet.
        zero_gamma: start every block as the identity, with gamma 0 in its last batch normalisation (Goyal et al.,
            "Accurate, Large Minibatch SGD", 2017, section 5.1). In v2 no normalisation follows the block's last
            convolution, so that convolution starts at 0 instead.

    Returns:
        A model from `inputs` to float32 logits (batch, classes).

    Raises:
        UserError: no such network or shortcut; the data are not images, or are too small for the network.
    """
    depth, preactivate = _parse(name)
    imagenet = depth in IMAGENET
    shortcut = shortcut or ("B" if imagenet else "A")
    if shortcut not in ("A", "B"):
        raise UserError(f"shortcut {shortcut!r}: it must be A (zero padding) or B (1x1 convolution)")
    least = 32 if imagenet else 8
    if len(x.shape) != 4 or min(x.shape[1:3]) < least:
        raise UserError(
            f"{name} takes images (height, width, channels) of at least {least} x {least}; the data have "
            f"{tuple(inputs.shape[1:])}"
        )
    blocks, bottleneck = IMAGENET[depth] if imagenet else (((depth - 2) // 6,) * 3, False)
    filters = (64, 128, 256, 512) if imagenet else (16, 32, 64)
    x = _stem(x, imagenet)
    block = _preactivation_block if preactivate else _block
    for stage, (width, count) in enumerate(zip(filters, blocks, strict=True), 1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = block(x, width, stride, bottleneck, shortcut, zero_gamma, f"stage{stage}_block{number}")
    if preactivate:
        x = _activate(x, "head_bn", "head_relu")
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    # The last layer starts as in Goyal et al., section 5.1.
    head = layers.Dense(classes, kernel_initializer=initializers.RandomNormal(0, 0.01), dtype="float32", name="logits")
    return Model(inputs, head(x), name=name)


def _stem(x, imagenet: bool):
    x = _conv(x, 64, 7, 2, "stem_conv") if imagenet else _conv(x, 16, 3, 1, "stem_conv")
    x = _activate(x, "stem_bn", "stem_relu")
    if not imagenet:
        return x
    # Padding with zeros changes no maximum, because a ReLU gives no negative values.
    return layers.MaxPooling2D(3, 2, name="stem_pool")(layers.ZeroPadding2D(1, name="stem_pool_pad")(x))


def _parse(name: str) -> tuple[int, bool]:
    """(depth, whether it is v2) of a name; UserError for a name of no network."""
    match = re.fullmatch(r"resnet([1-9]\d{0,3})(v2)?", name)
    depth = int(match[1]) if match else 0
    if depth in IMAGENET or (depth >= 8 and depth % 6 == 2):
        return depth, bool(match[2])
    nearest = difflib.get_close_matches(name, FAMILY, 1)
    raise UserError(
        f"there is no residual network {name!r}{f'; did you mean {nearest[0]}?' if nearest else ''}; the networks are "
        f"resnet{{{','.join(map(str, IMAGENET))}}} for ImageNet, resnetN with N = 6n + 2 for CIFAR, and v2 of each"
    )


def _block(x, width: int, stride: int, bottleneck: bool, shortcut: str, zero_gamma: bool, name: str):
    """A block of v1: convolutions, each with batch normalisation, are added to the shortcut; ReLU follows."""
    way = _shortcut(x, width * 4 if bottleneck else width, stride, shortcut, True, name)
    convolutions = _convolutions(width, stride, bottleneck)
    for number, (filters, kernel, step) in enumerate(convolutions, 1):
        x = _conv(x, filters, kernel, step, f"{name}_conv{number}")
        if number < len(convolutions):
            x = _activate(x, f"{name}_bn{number}", f"{name}_relu{number}")
        else:
            x = _norm(x, f"{name}_bn{number}", "zeros" if zero_gamma else "ones")
    return layers.Activation("relu", name=f"{name}_relu")(layers.Add(name=f"{name}_add")([way, x]))


def _preactivation_block(x, width: int, stride: int, bottleneck: bool, shortcut: str, zero_gamma: bool, name: str):
    """A block of v2: batch normalisation and ReLU before each convolution; nothing after the addition.

    In the first block of a stage the shortcut starts after the first normalisation and ReLU; in the first stage these
    are the stem's (appendix).
    """
    way, first = x, name.endswith("_block1")
    if name != "stage1_block1":
        x = _activate(x, f"{name}_bn1", f"{name}_relu1")
    way = _shortcut(x if first else way, width * 4 if bottleneck else width, stride, shortcut, False, name)
    convolutions = _convolutions(width, stride, bottleneck)
    for number, (filters, kernel, step) in enumerate(convolutions, 1):
        if number > 1:
            x = _activate(x, f"{name}_bn{number}", f"{name}_relu{number}")
        zero = zero_gamma and number == len(convolutions)
        x = _conv(x, filters, kernel, step, f"{name}_conv{number}", zero)
    return layers.Add(name=f"{name}_add")([way, x])


def _convolutions(width: int, stride: int, bottleneck: bool) -> tuple[tuple[int, int, int], ...]:
    """(filters, kernel, stride) of the convolutions of a block."""
    if bottleneck:
        return (width, 1, 1), (width, 3, stride), (width * 4, 1, 1)
    return (width, 3, stride), (width, 3, 1)


def _shortcut(x, filters: int, stride: int, option: str, normalise: bool, name: str):
    missing = filters - x.shape[-1]
    if stride == 1 and not missing:
        return x
    if option == "B":
        x = _conv(x, filters, 1, stride, f"{name}_shortcut_conv")
        return _norm(x, f"{name}_shortcut_bn") if normalise else x
    if stride > 1:
        x = layers.AveragePooling2D(1, stride, name=f"{name}_shortcut_pool")(x)
    # With "channels_first" it pads the last two axes: here the width by nothing, and the channels.
    pad = layers.ZeroPadding2D(((0, 0), (0, missing)), data_format="channels_first", name=f"{name}_shortcut_pad")
    return pad(x)


def _conv(x, filters: int, kernel: int, stride: int, name: str, zero: bool = False):
    """A convolution without bias, with windows centred on pixels 0, stride, 2 * stride, ..."""
    if kernel > 1 and stride > 1:
        # "same" would centre them on 1, 3, 5, ... of an even side, next to the pixels that the shortcut takes.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    padding = "same" if stride == 1 else "valid"
    # A new one each time: a Keras initializer gives the same numbers again for the same shape.
    start = "zeros" if zero else initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return layers.Conv2D(filters, kernel, stride, padding, use_bias=False, kernel_initializer=start, name=name)(x)


def _norm(x, name: str, gamma: str = "ones"):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=name)(x)


def _activate(x, bn: str, relu: str):
    return layers.Activation("relu", name=relu)(_norm(x, bn))
