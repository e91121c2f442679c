"""The networks that the other frameworks have, too, and how the trainers update them."""

import re
from dataclasses import dataclass

from hpc_train.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """SGD with the defaults of a trainer."""

    momentum: float
    nesterov: bool
    weight_decay: float
    """L2 in the gradient of kernels, not of biases or normalisation."""


RECIPES = {"mnist": Recipe(0.9, False, 0.0), "resnet": Recipe(0.9, True, 1e-4)}
_DEEPEST = 110
_OF_IMAGENET = 50


def check(trainer: str, model: str) -> None:
    """Check that the other frameworks have this network.

    Raises:
        UserError: they do not.
    """
    if not (trainer == "mnist" and model == "deep") and not (trainer == "resnet" and _blocks(model)):
        raise UserError(
            f"the other frameworks have no {trainer} {model}; they have mnist deep, and resnet resnetN with N = 6n + 2 "
            f"up to {_DEEPEST} (resnet20, 32, 44, 56, 110), without v2"
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
    if model == "deep":
        pooled = (height - 4) // 2 * ((width - 4) // 2) * 64
        count = _dense(9 * channels, 32) + _dense(9 * 32, 64) + _dense(pooled, 128) + _dense(128, classes)
        return count, count
    widths = [16, *(filters for filters in (16, 32, 64) for _ in range(2 * _blocks(model)))]
    kernels = sum(9 * before * after for before, after in zip([channels, *widths], widths, strict=False))
    trained = kernels + 2 * sum(widths) + _dense(64, classes)
    return trained + 2 * sum(widths), trained


def _blocks(model: str) -> int:
    """Residual blocks in each stage of a CIFAR network; 0 if `model` does not name one."""
    depth = int(match[1]) if (match := re.fullmatch(r"resnet([1-9]\d{0,2})", model)) else 0
    known = 8 <= depth <= _DEEPEST and depth % 6 == 2 and depth != _OF_IMAGENET
    return (depth - 2) // 6 if known else 0


def _dense(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
