"""Tiramisu, the fully convolutional DenseNet, as changed for climate data.

Jégou et al., "The One Hundred Layers Tiramisu" (2017), sections 3.1-3.3; Kurth et al., "Exascale Deep Learning for
Climate Analytics" (2018), section V-B1: fewer layers in a block, growth rate 32 instead of 16, 5x5 convolutions.
Details that the papers leave open follow the code published with the second: each convolution is followed by ReLU and
dropout, has a bias, starts from He's uniform distribution, and has no batch normalisation; a transition down is a 1x1
convolution of stride 2; a transition up takes the maps that the block before it added, and keeps their number; skips
are whole blocks. Two things differ: the logits have no dropout, and weight decay is left to the optimizer.

Layers are named by level and place: `stem_conv`, `down1_layer2_conv`, `down1_transition_conv`, `up4_transposed`,
`up4_layer1_conv`, `logits`. Level 1 has full resolution, `down5` is the bottom.
"""

from dataclasses import dataclass
from functools import partial

from keras import KerasTensor, Model, layers

from hpc_train.models.presets import choose, segment


@dataclass(frozen=True)
class Preset:
    """Widths and depths of a Tiramisu."""

    stem: int
    """Filters of the first convolution."""
    down: tuple[int, ...]
    """Layers in each dense block from full resolution to the bottom; the way up has the same without the last."""
    growth: int
    """Maps that each layer adds."""
    kernel: int
    """Side of the convolutions in the stem and in dense blocks."""
    dropout: float
    """Share of the values to drop after each convolution."""
    batch_norm: bool
    """Normalise between convolution and ReLU; convolutions then have no bias."""


FAMILY = {
    "tiramisu": Preset(64, (2, 2, 2, 4, 5), 32, 5, 0.2, batch_norm=False),
    "tiramisu-small": Preset(24, (2, 2, 2, 3, 4), 12, 3, 0.1, batch_norm=True),
}
# A mean over about the last ten steps: even a run of a few hundred steps validates with statistics of its weights.
_MOMENTUM = 0.9


def build(name: str, inputs: KerasTensor, x: KerasTensor, classes: int) -> Model:
    """Build a Tiramisu of `FAMILY`; the arguments, the result and the errors are those of `presets.segment`."""
    preset = choose(name, FAMILY)
    return segment(name, inputs, x, classes, multiple(name), partial(_network, preset), "he_uniform")


def multiple(name: str) -> int:
    """Images whose height and width are multiples of this are not padded."""
    return 2 ** (len(choose(name, FAMILY).down) - 1)


def _network(preset: Preset, x):
    x = _layer(x, preset.stem, preset.kernel, 1, preset, "stem")
    skips, bottom = [], len(preset.down)
    for level, count in enumerate(preset.down, 1):
        x, added = _dense_block(x, count, preset, f"down{level}")
        if level < bottom:
            skips.append(x)
            x = _layer(x, x.shape[-1], 1, 2, preset, f"down{level}_transition")
    for level in range(bottom - 1, 0, -1):
        x = _join(added, f"up{level}_added")
        x = layers.Conv2DTranspose(
            x.shape[-1], 3, 2, "same", kernel_initializer="he_uniform", name=f"up{level}_transposed"
        )(x)
        x = layers.Concatenate(name=f"up{level}_skip")([x, skips.pop()])
        x, added = _dense_block(x, preset.down[level - 1], preset, f"up{level}")
    return x


def _dense_block(x, count: int, preset: Preset, name: str):
    """(x followed by the maps of `count` layers, those maps as a list); each layer sees all maps before it."""
    added = []
    for number in range(1, count + 1):
        y = _layer(x, preset.growth, preset.kernel, 1, preset, f"{name}_layer{number}")
        x = layers.Concatenate(name=f"{name}_layer{number}_concat")([x, y])
        added.append(y)
    return x, added


def _layer(x, filters: int, kernel: int, stride: int, preset: Preset, name: str):
    """Convolution, normalisation if the preset has it, ReLU, dropout."""
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        "same",
        use_bias=not preset.batch_norm,
        kernel_initializer="he_uniform",
        name=f"{name}_conv",
    )(x)
    if preset.batch_norm:
        x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.Dropout(preset.dropout, name=f"{name}_dropout")(layers.Activation("relu", name=f"{name}_relu")(x))


def _join(maps: list, name: str):
    return layers.Concatenate(name=name)(maps) if len(maps) > 1 else maps[0]
