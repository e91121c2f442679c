"""The networks that the other frameworks have, too, and how the trainers update them."""

import re
from dataclasses import dataclass

from hpc_train.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """The optimizer of a trainer with its defaults: SGD, or Adam, which takes no other field."""

    optimizer: str
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    """L2 in the gradient of kernels, not of biases or normalisation."""


RECIPES = {"mnist": Recipe("sgd"), "resnet": Recipe("sgd", nesterov=True, weight_decay=1e-4), "climate": Recipe("adam")}
_TIRAMISU = "tiramisu", "tiramisu-small"
_DEEPEST = 110
_OF_IMAGENET = 50


def check(trainer: str, model: str) -> None:
    """Check that the other frameworks have this network.

    Raises:
        UserError: they do not.
    """
    known = {"mnist": model == "deep", "resnet": bool(_blocks(model)), "climate": model in _TIRAMISU}
    if not known.get(trainer):
        raise UserError(
            f"the other frameworks have no {trainer} {model}; they have mnist deep, resnet resnetN with N = 6n + 2 up "
            f"to {_DEEPEST} (resnet20, 32, 44, 56, 110), without v2, and climate {' and '.join(_TIRAMISU)}"
        )


def parameters(model: str, input_shape: tuple[int, int, int], classes: int) -> tuple[int, int]:
    """Count the parameters of a network that `check` accepts.

    Args:
        model: its name.
        input_shape: (height, width, channels).
        classes: number of classes.

    Returns:
        (all, those that are trained). All include the moving means and variances of batch normalisation, as in Keras.
    """
    height, width, channels = input_shape
    if model in _TIRAMISU:
        return _tiramisu(model, channels, classes)
    if model == "deep":
        pooled = (height - 4) // 2 * ((width - 4) // 2) * 64
        count = _dense(9 * channels, 32) + _dense(9 * 32, 64) + _dense(pooled, 128) + _dense(128, classes)
        return count, count
    widths = [16, *(filters for filters in (16, 32, 64) for _ in range(2 * _blocks(model)))]
    kernels = sum(9 * before * after for before, after in zip([channels, *widths], widths, strict=False))
    trained = kernels + 2 * sum(widths) + _dense(64, classes)
    return trained + 2 * sum(widths), trained


def _tiramisu(model: str, channels: int, classes: int) -> tuple[int, int]:
    from hpc_train.models.tiramisu import FAMILY

    preset, trained, outputs = FAMILY[model], 0, 0

    def layer(before: int, after: int, kernel: int) -> int:
        nonlocal trained, outputs
        outputs += after
        trained += kernel * kernel * before * after + (2 if preset.batch_norm else 1) * after
        return after

    def block(maps: int, count: int) -> int:
        for _ in range(count):
            maps += layer(maps, preset.growth, preset.kernel)
        return maps

    maps, skips = layer(channels, preset.stem, preset.kernel), []
    for count in preset.down:
        if skips:
            layer(maps, maps, 1)
        maps = block(maps, count)
        skips.append(maps)
    added = preset.growth * preset.down[-1]
    for count, skip in zip(reversed(preset.down[:-1]), reversed(skips[:-1]), strict=True):
        trained += 9 * added * added + added
        maps, added = block(added + skip, count), preset.growth * count
    trained += _dense(maps, classes)
    return trained + 2 * outputs * preset.batch_norm, trained


def _blocks(model: str) -> int:
    """Residual blocks in each stage of a CIFAR network; 0 if `model` does not name one."""
    depth = int(match[1]) if (match := re.fullmatch(r"resnet([1-9]\d{0,2})", model)) else 0
    known = 8 <= depth <= _DEEPEST and depth % 6 == 2 and depth != _OF_IMAGENET
    return (depth - 2) // 6 if known else 0


def _dense(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
