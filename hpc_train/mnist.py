"""Train an MNIST network: horovodrun -np 4 python -m hpc_train.mnist --data shards/mnist --model dropout."""

from dataclasses import dataclass
from typing import Literal

from hpc_train import command_line, training
from hpc_train.training.task import check_labels


@dataclass(frozen=True)
class Options(training.Options):
    """Train one of the MNIST networks on a folder of shards, one process a GPU."""

    model: Literal["fc", "cnn", "deep", "dropout", "batchnorm", "residual", "lstm"] = "deep"
    """Network. fc: one hidden dense layer; lstm: four recurrent layers; the others are convolutional."""
    augment: bool = False
    """Shift, rotate and zoom the training images a little."""


def run(options: Options) -> None:
    """Train by the options; every rank calls it."""
    training.train(options, task(options))


def task(options: Options) -> training.Task:
    """The network that the options choose, as a task."""

    def build(catalogue):
        from hpc_train.models import mnist

        check_labels(catalogue, "the MNIST networks")
        shape, dtype = catalogue.input_shape, catalogue.input_dtype.name
        return mnist.build(options.model, shape, dtype, catalogue.classes, options.augment)

    return training.Task(f"mnist-{options.model}", build)


def network(name: str, shape: tuple[int, int, int], classes: int):
    """The network `name` for samples that need no normalising: from float32 samples of `shape` to logits.

    Raises:
        UserError: there is no such network, or it does not take this shape.
    """
    from hpc_train.models import mnist, presets

    presets.choose(name, mnist.FAMILY)
    return mnist.build(name, shape, "float32", classes)


if __name__ == "__main__":
    command_line.main(Options, run, "python -m hpc_train.mnist")
