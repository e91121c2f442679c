"""A saved model evaluated by plain Keras, in a process that can import neither Horovod nor this package."""

import subprocess
import sys
from typing import NamedTuple

import numpy as np
from launch import environment

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader

SCRIPT = """
import sys
sys.modules["horovod"] = sys.modules["hpc_train"] = None
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
data = np.load(sys.argv[2])
optimizer = type(model.optimizer)
figures = model.evaluate(data["inputs"], data["targets"], verbose=0)
print(optimizer.__module__, optimizer.__name__, int(model.optimizer.iterations), *figures)
"""


class Evaluated(NamedTuple):
    """The output of the process; `optimizer` is a class of `module`, which has made `iterations` steps."""

    module: str
    optimizer: str
    iterations: int
    loss: float
    accuracy: float


def evaluate(model, shards, folder) -> Evaluated:
    """Evaluate a .keras file on the split test of `shards`; `folder`: for the data that the process reads."""
    catalogue = Catalogue.open(shards, "test")
    inputs, targets = Reader(catalogue).read(np.arange(catalogue.samples))
    np.savez(folder / "test.npz", inputs=inputs, targets=targets)
    command = [sys.executable, "-c", SCRIPT, str(model), str(folder / "test.npz")]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=folder, timeout=240)
    assert ended.returncode == 0, ended.stderr
    module, optimizer, iterations, loss, accuracy = ended.stdout.split()
    return Evaluated(module, optimizer, int(iterations), float(loss), float(accuracy))
