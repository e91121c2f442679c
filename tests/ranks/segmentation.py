"""A user's own network and HDF5 files through the suite's trainer: a small convolutional network for label maps."""

from dataclasses import dataclass
from pathlib import Path

from hpc_train import command_line, training


@dataclass(frozen=True)
class Options(training.Options):
    """Train a small segmentation network."""

    width: int = 8
    """Filters of each convolution."""
    statistics: Path | None = None
    """Statistics of the channels, from `hpc-train stats`."""


def run(options):
    def build(catalogue):
        from keras import Model, layers

        from hpc_train.data.statistics import load_statistics
        from hpc_train.models.inputs import network_input

        inputs, x = network_input(catalogue, options.statistics and load_statistics(options.statistics))
        for _ in range(3):
            x = layers.Conv2D(options.width, 3, padding="same", activation="relu")(x)
        return Model(inputs, layers.Conv2D(catalogue.classes, 1, dtype="float32")(x))

    training.train(options, training.Task("segmentation", build))


if __name__ == "__main__":
    command_line.main(Options, run, "segmentation.py")
