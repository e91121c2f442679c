"""A user's own network and HDF5 files through the suite's trainer: a small convolutional network for label maps."""

from dataclasses import dataclass

from hpc_train import options, train


@dataclass(frozen=True)
class Options(train.Options):
    """Train a small segmentation network."""

    width: int = 8
    """Filters of each convolution."""


def run(chosen):
    def build(catalogue):
        from keras import Input, Sequential, layers

        first = catalogue.channel_axis == 0
        network = [Input(catalogue.input_shape, dtype=catalogue.input_dtype.name)]
        network += [layers.Permute((2, 3, 1))] if first else []
        network += [layers.Conv2D(chosen.width, 3, padding="same", activation="relu") for _ in range(3)]
        return Sequential([*network, layers.Conv2D(catalogue.classes, 1, dtype="float32")])

    train.train(chosen, "segmentation", build)


if __name__ == "__main__":
    options.main(Options, run, "segmentation.py")
