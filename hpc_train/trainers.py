"""The table of trainers, which commands, benchmarks and tests read: a new trainer is a module and a line here.

The module has `Options`, a dataclass derived from `training.Options`; `run(options)`, which trains; `task(options)`, a
`training.Task`; and `network(name, shape, classes)`, the Keras model that `hpc-train flops` counts; in
`fit`, where a user's function makes it, `network(build, catalogue, arguments)`.
"""

import importlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Trainer:
    """A trainer, `python -m hpc_train.NAME`; its module is imported when it is used.

    Args:
        name: of the module.
        trains: its networks and data, in a few words.
        template: its batch script in slurm/.
        model: the network that `hpc-train flops` counts by default; empty where it is named by FILE.py:FUNCTION.
        shape: of a sample of that network, (height, width, channels).
        classes: of that network.
    """

    name: str
    trains: str
    template: str
    model: str = ""
    shape: tuple[int, ...] = ()
    classes: int = 0

    @property
    def module(self):
        """The trainer's module."""
        return importlib.import_module(f"hpc_train.{self.name}")


TRAINERS = {
    trainer.name: trainer
    for trainer in (
        Trainer("mnist", "small networks on images such as MNIST's", "mnist_8gpu.sh", "deep", (28, 28, 1), 10),
        Trainer("resnet", "ResNets and Keras applications on images", "resnet.sh", "resnet50", (224, 224, 3), 1000),
        Trainer("climate", "Tiramisu and DeepLabv3+ on weather maps", "climate.sh", "tiramisu", (768, 1152, 16), 3),
        Trainer("fit", "your own Keras model, on any data", "fit.sh"),
    )
}
