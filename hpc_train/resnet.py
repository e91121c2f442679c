"""Train a ResNet or any Keras application: horovodrun -np 4 python -m hpc_train.resnet --data shards/imagenet."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from hpc_train import command_line, training
from hpc_train.errors import UserError
from hpc_train.training.task import check_labels

# Mean and deviation of ImageNet's pixels, in 0..255, as usual for natural images. Other bytes get (x - 127.5) / 127.5.
_RGB_MEAN, _RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Options(training.Options):
    """Train a ResNet of the CIFAR or the ImageNet family on images, one process a GPU.

    The defaults are the recipe of Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 5.1, with a cosine.
    """

    model: str = "resnet50"
    """resnet18, 34, 50, 101, 152 or 200 (for ImageNet); resnet20, 32, 44, 56, 110 or any 6n + 2 (for CIFAR); with v2
    at the end: pre-activation; keras:NAME: any of keras.applications, such as keras:EfficientNetV2B0."""
    shortcut: Literal["A", "B"] | None = None
    """Where a block widens: A pads with zeros, B projects; by default A for CIFAR networks and B for ImageNet's."""
    zero_gamma: bool = True
    """Start with every residual block as the identity."""
    augment: Literal["none", "crop-flip", "randaugment"] = "none"
    """crop-flip: shift by up to an eighth and flip, as for CIFAR; randaugment: the same, and RandAugment. JPEG shards
    are cropped and flipped while they are decoded: see --crop."""
    randaugment: tuple[int, float] = (2, 0.3)
    """With --augment randaugment: the number of operations, one after the other, and their strength from 0 to 1."""
    statistics: Path | None = None
    """statistics.h5 from `hpc-train stats`, to normalise the channels. By default colour images of bytes are normalised
    with ImageNet's statistics, other bytes to -1..1, and data of other types not at all."""
    epochs: int = 90
    """Passes over the data; N ranks take 1/N of the steps that one rank takes."""
    batch_size: int = 32
    """Samples that a rank computes at once; the global batch is this times --accumulate times the number of ranks."""
    lr: float = 0.1
    """Learning rate at the base batch."""
    base_batch: int = 256
    """Global batch for which --lr was chosen."""
    warmup_epochs: float = 5.0
    """Epochs in which the learning rate rises from that of one rank (at most --lr) to its scaled value."""
    nesterov: bool = True
    """Use Nesterov's momentum in SGD."""
    weight_decay: float = 1e-4
    """Weight decay, of kernels alone and never of biases or normalisation: L2 in the gradient for SGD, decoupled for
    Adam and LAMB."""


def run(options: Options) -> None:
    """Train by the options; every rank calls it."""
    training.train(options, task(options))


def task(options: Options) -> training.Task:
    """The network that the options choose, as a task."""
    if options.statistics:
        from hpc_train.data.statistics import load_statistics
        from hpc_train.training.early_checks import check_statistics

        check_statistics(options, lambda: load_statistics(options.statistics))
    return training.Task(options.model.replace(":", "-"), partial(build, options), facts=partial(_facts, options))


def build(options: Options, catalogue):
    """The network that the options choose: an uncompiled Keras model from images as stored to logits.

    Raises:
        UserError: there is no such network, or it does not take the data.
    """
    check_labels(catalogue, "the residual networks")
    if len(catalogue.input_shape) != 3:
        raise UserError(
            f"{catalogue.files[0]}: the residual networks need images (height, width, channels); inputs have shape "
            f"{catalogue.input_shape}"
        )
    application = options.model.startswith("keras:")
    if application and (options.shortcut or options.statistics):
        raise UserError("--shortcut and --statistics are for residual networks, not for keras:NAME: leave them out")
    if options.augment != "randaugment" and options.randaugment != Options.randaugment:
        raise UserError("--randaugment is for --augment randaugment; give both or leave it out")
    from hpc_train.models import applications, augment, resnet
    from hpc_train.models.inputs import network_input

    if options.augment == "randaugment" and catalogue.input_dtype.name != "uint8":
        raise UserError(f"--augment randaugment is for bytes; the data are {catalogue.input_dtype.name}")
    distort = (lambda x: augment.rand_augment(x, *options.randaugment)) if options.augment == "randaugment" else _leave
    move = augment.crop_flip if options.augment != "none" else _leave
    if application:
        shape, dtype = catalogue.input_shape, catalogue.input_dtype.name
        name = options.model.removeprefix("keras:")
        return applications.build(name, shape, catalogue.classes, dtype, lambda x: move(distort(x)))
    inputs, x = network_input(catalogue)
    x = move(_normalise(distort(x), options.statistics, catalogue))
    return resnet.build(options.model, inputs, x, catalogue.classes, options.shortcut, options.zero_gamma)


def _facts(options: Options, catalogue) -> dict:
    from hpc_train.data.statistics import load_statistics

    return {"statistics": load_statistics(options.statistics).digest} if options.statistics else {}


def _leave(x):
    return x


def _normalise(x, statistics: Path | None, catalogue):
    from keras import layers

    from hpc_train.data.statistics import load_statistics
    from hpc_train.models.inputs import normalise

    if statistics:
        return normalise(x, load_statistics(statistics))
    if catalogue.input_dtype.name != "uint8":
        return x
    if x.shape[-1] != 3:
        return layers.Rescaling(1 / 127.5, -1, name="normalise")(x)
    variance = [deviation**2 for deviation in _RGB_STD]
    return layers.Normalization(mean=_RGB_MEAN, variance=variance, name="normalise")(x)


def network(name: str, shape: tuple[int, int, int], classes: int):
    """The network `name` for samples that need no normalising: from float32 samples of `shape` to logits.

    Raises:
        UserError: there is no such network, or it does not take this shape.
    """
    from keras import Input

    from hpc_train.models import applications, resnet

    if name.startswith("keras:"):
        return applications.build(name.removeprefix("keras:"), shape, classes, "float32")
    inputs = Input(shape)
    return resnet.build(name, inputs, inputs, classes)


if __name__ == "__main__":
    command_line.main(Options, run, "python -m hpc_train.resnet")
