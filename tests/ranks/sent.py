"""What this rank sends and gets, by collective, in a training: sent.py OUT TRAINER [OPTIONS]; rank 0 writes OUT.

Collectives inside a traced step are not counted: they carry gradients.
"""

import json
import sys
from pathlib import Path

import horovod.tensorflow as hvd
import tensorflow as tf

CALLS: dict[str, list] = {}


def counted(kind, function):
    """The function, whose calls outside of graphs are counted."""

    def call(tensor, *args, **kwargs):
        result = function(tensor, *args, **kwargs)
        if tf.executing_eagerly():
            sent, got = (one.dtype.size * int(tf.size(one)) for one in map(tf.convert_to_tensor, (tensor, result)))
            name = f"{kind} {kwargs.get('name')}"
            calls, before, after = CALLS.get(name, (0, 0, 0))
            CALLS[name] = calls + 1, before + sent, after + got
        return result

    return call


for kind in ("allreduce", "allgather", "broadcast"):
    made = counted(kind, getattr(hvd, kind))
    setattr(hvd, kind, made)
# The two for objects find these in their own module.
functions = sys.modules[hvd.allgather_object.__module__]
functions.allgather, functions.broadcast = hvd.allgather, hvd.broadcast

from hpc_train import command_line  # noqa: E402
from hpc_train.trainers import TRAINERS  # noqa: E402

out, trainer = Path(sys.argv[1]), TRAINERS[sys.argv[2]].module


def run(options):
    """Train, and write what was counted when the training ends."""
    trainer.run(options)
    if hvd.rank() == 0:
        out.write_text(json.dumps({"ranks": hvd.size(), "calls": CALLS}))


command_line.main(trainer.Options, run, "sent", sys.argv[3:])
