"""The networks that the other frameworks have, too, and how the trainers update them."""

import contextlib
import math
import re
from dataclasses import asdict, dataclass

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
_MNIST = "deep", "lstm"
_TIRAMISU = "tiramisu", "tiramisu-small"
_OF_IMAGENET = 18, 34, 50, 101, 152, 200
_DEEPEST_OF_CIFAR = 110


def check(trainer: str, model: str) -> None:
    """Check that the other frameworks have this network.

    Raises:
        UserError: they do not.
    """
    known = {"mnist": model in _MNIST, "resnet": bool(_depth(model)), "climate": model in _TIRAMISU}
    if not known.get(trainer):
        raise UserError(
            f"the other frameworks have no {trainer} {model}; they have mnist {' and '.join(_MNIST)}; resnet resnetN, "
            f"without v2, with N = {', '.join(map(str, _OF_IMAGENET))} or N = 6n + 2 up to {_DEEPEST_OF_CIFAR} "
            f"(resnet20, 32, 44, 56, 110); and climate {' and '.join(_TIRAMISU)}"
        )


def sizes(model: str) -> dict:
    """What a network in PyTorch must know beside its name: a ResNet's blocks, a Tiramisu's preset."""
    if model in _TIRAMISU:
        from hpc_train.models.tiramisu import FAMILY

        return {"preset": asdict(FAMILY[model])}
    if depth := _depth(model):
        from hpc_train.models.resnet import IMAGENET

        blocks, bottleneck = IMAGENET.get(depth, ((depth // 6,) * 3, False))
        return {"blocks": blocks, "bottleneck": bottleneck, "imagenet": depth in IMAGENET}
    return {}


def parameters(trainer: str, model: str, input_shape: tuple[int, int, int], classes: int) -> tuple[int, int]:
    """Count the parameters of the suite's network.

    Args:
        trainer: its trainer.
        model: its name.
        input_shape: (height, width, channels).
        classes: number of classes.

    Returns:
        (all, those that are trained). All include the moving means and variances of batch normalisation.
    """
    import tensorflow as tf

    from hpc_train.trainers import TRAINERS

    # The GPUs are for the ranks. RuntimeError: TensorFlow has started, and has what it has.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    network = TRAINERS[trainer].module.network(model, input_shape, classes)
    return network.count_params(), sum(math.prod(variable.shape) for variable in network.trainable_variables)


def _depth(model: str) -> int:
    """The depth in the name of a residual network that the others have, else 0."""
    depth = int(match[1]) if (match := re.fullmatch(r"resnet([1-9]\d{0,2})", model)) else 0
    return depth if depth in _OF_IMAGENET or (8 <= depth <= _DEEPEST_OF_CIFAR and depth % 6 == 2) else 0
