"""DeepLabv3+ with a decoder to full resolution, as changed for climate data.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution" (2018), sections 3.1-3.2; Kurth et al., "Exascale Deep
Learning for Climate Analytics" (2018), section V-B2: ResNet-50 v2 at output stride 8, and transposed convolutions up to
the resolution of the input, where a path from the input joins. Details that the papers leave open follow the code
published with the second: the encoder is that of TF-Slim, whose stages stride in their last block, and the low-level
features are the output of the first convolution in the last block of stage 1. Its full-resolution layers have a bias
and no batch normalisation. Three things differ: the encoder ends with normalisation and ReLU, as ResNet v2 does; all
convolutions of the decoder are followed by ReLU; and the image pooling, one value for each channel and sample, has a
bias instead of a batch normalisation, which would turn one sample into zeros. Weight decay is left to the optimizer.

Layers are named by part and place: `stem_conv`, `stage2_block1_conv2`, `aspp_rate12_conv`, `decoder_up1`,
`decoder_conv1_conv`, `decoder_skip1`, `logits`.
"""

from dataclasses import dataclass
from functools import partial

from keras import KerasTensor, Model, layers, ops

from hpc_train.models.presets import choose, segment


@dataclass(frozen=True)
class Preset:
    """Widths and depths of a DeepLabv3+."""

    stem: int
    """Filters of the first convolution, 7x7 of stride 2."""
    blocks: tuple[int, int, int, int]
    """Bottlenecks in each stage of the encoder."""
    width: int
    """Filters inside the bottlenecks of stage 1; each stage doubles them, and its output has four times its width."""
    rates: tuple[int, ...]
    """Dilations of the pyramid's 3x3 convolutions."""
    pyramid: int
    """Filters of each branch of the pyramid, and of the convolution that joins the branches."""
    low_level: int
    """Maps to which the low-level features, at a quarter of the resolution, are reduced."""
    decoder: int
    """Filters of the decoder's convolutions."""
    skip: tuple[int, int]
    """Filters of the path from the input, at full resolution."""
    momentum: float
    """Momentum of batch normalisation's moving statistics; 0.9997 in the published code, too slow for short runs."""


FAMILY = {
    "deeplab": Preset(64, (3, 4, 6, 3), 64, (12, 24, 36), 256, 48, 256, (64, 128), 0.99),
    "deeplab-small": Preset(16, (2, 2, 2, 2), 16, (2, 4, 6), 48, 16, 24, (16, 24), 0.9),
}
# The output stride; height and width must be multiples of it.
_STRIDE = 8


def build(name: str, inputs: KerasTensor, x: KerasTensor, classes: int) -> Model:
    """Build a DeepLabv3+ of `FAMILY`; the arguments, the result and the errors are those of `presets.segment`."""
    preset = choose(name, FAMILY)
    return segment(name, inputs, x, classes, _STRIDE, partial(_network, preset), "he_normal")


def multiple(name: str) -> int:
    """Images whose height and width are multiples of this are not padded."""
    choose(name, FAMILY)
    return _STRIDE


def _network(preset: Preset, image):
    features, low_level = _encoder(image, preset)
    return _decoder(_pyramid(features, preset), low_level, image, preset)


def _encoder(x, preset: Preset):
    """(features at 1/8 of the resolution, low-level features at 1/4); beyond 1/8, dilation replaces strides."""
    x = layers.ZeroPadding2D(3, name="stem_pad")(x)
    x = _conv(x, preset.stem, 7, "stem_conv", stride=2, padding="valid", bias=True)
    x = layers.MaxPooling2D(3, 2, "same", name="stem_pool")(x)
    reached, dilation, low_level = 4, 1, None
    for stage, count in enumerate(preset.blocks, 1):
        for block in range(1, count + 1):
            last = block == count and stage < len(preset.blocks)
            stride = 2 if last and reached < _STRIDE else 1
            width = preset.width * 2 ** (stage - 1)
            x, narrow = _bottleneck(x, width, stride, dilation, preset, f"stage{stage}_block{block}")
            low_level = narrow if stage == 1 else low_level
            if last and stride == 1:
                dilation *= 2
            reached *= stride
    return _activate(x, preset, "encoder"), low_level


def _bottleneck(x, width: int, stride: int, dilation: int, preset: Preset, name: str):
    """(the pre-activation unit of ResNet v2, the output of its first convolution after normalisation and ReLU)."""
    y = _activate(x, preset, name)
    if x.shape[-1] != 4 * width:
        way = _conv(y, 4 * width, 1, f"{name}_shortcut", stride=stride, bias=True)
    elif stride > 1:
        way = layers.MaxPooling2D(1, stride, name=f"{name}_shortcut")(x)
    else:
        way = x
    narrow = _normal_conv(y, width, 1, preset, f"{name}_conv1")
    if stride > 1:
        # "same" would take rows 1, 3, 5, ... where the shortcut takes 0, 2, 4, ...
        y = layers.ZeroPadding2D(1, name=f"{name}_conv2_pad")(narrow)
        y = _normal_conv(y, width, 3, preset, f"{name}_conv2", stride=stride, padding="valid")
    else:
        y = _normal_conv(narrow, width, 3, preset, f"{name}_conv2", dilation=dilation)
    y = _conv(y, 4 * width, 1, f"{name}_conv3", bias=True)
    return layers.Add(name=f"{name}_add")([way, y]), narrow


def _pyramid(x, preset: Preset):
    """Atrous spatial pyramid pooling: branches that see neighbours at several distances, and the image's mean."""
    near = _normal_conv(x, preset.pyramid, 1, preset, "aspp_1x1")
    branches = [near]
    for rate in preset.rates:
        branches.append(_normal_conv(x, preset.pyramid, 3, preset, f"aspp_rate{rate}", dilation=rate))
    mean = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_pool")(x)
    mean = _relu_conv(mean, preset.pyramid, 1, "aspp_pool")
    # Broadcasting spreads it over the pixels without knowing their number.
    branches.append(mean + ops.zeros_like(near))
    return _normal_conv(layers.Concatenate(name="aspp_concat")(branches), preset.pyramid, 1, preset, "aspp_project")


def _decoder(x, low_level, image, preset: Preset):
    """Return to the resolution of the image: by 2, with the low-level features; by 4, with a path from the image."""
    x = _up(x, preset.pyramid, "decoder_up1")
    low_level = _normal_conv(low_level, preset.low_level, 1, preset, "decoder_low_level")
    x = layers.Concatenate(name="decoder_concat1")([x, low_level])
    for number in (1, 2):
        x = _normal_conv(x, preset.decoder, 3, preset, f"decoder_conv{number}")
    for number in (2, 3):
        x = _up(x, preset.decoder, f"decoder_up{number}")
    for number, filters in enumerate(preset.skip, 1):
        image = _relu_conv(image, filters, 3, f"decoder_skip{number}")
    x = layers.Concatenate(name="decoder_concat2")([x, image])
    for number in (3, 4):
        x = _relu_conv(x, preset.decoder, 3, f"decoder_conv{number}")
    return x


def _up(x, filters: int, name: str):
    x = layers.Conv2DTranspose(filters, 3, 2, "same", kernel_initializer="he_uniform", name=f"{name}_transposed")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _normal_conv(x, filters: int, kernel: int, preset: Preset, name: str, **options):
    return _activate(_conv(x, filters, kernel, f"{name}_conv", **options), preset, name)


def _relu_conv(x, filters: int, kernel: int, name: str):
    return layers.Activation("relu", name=f"{name}_relu")(_conv(x, filters, kernel, f"{name}_conv", bias=True))


def _conv(x, filters: int, kernel: int, name: str, stride=1, dilation=1, padding="same", bias=False):
    return layers.Conv2D(
        filters,
        kernel,
        stride,
        padding,
        dilation_rate=dilation,
        use_bias=bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _activate(x, preset: Preset, name: str):
    x = layers.BatchNormalization(momentum=preset.momentum, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)
