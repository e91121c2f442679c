"""An elastic job for test_elastic.py: a linear model by `fit`, with ranks that join, are killed, and leave.

Arguments: a folder, and "array" (a finite data set, its length is the epoch's) or "repeat" (with steps_per_epoch, and
backward_passes_per_step=2, with commits between the updates).
In the folder, inputs.npy and targets.npy hold (steps, ranks, batch, width) and (steps, ranks, batch, 1) numbers.
plan.json lists [epoch, step, what]: a text is the new output of the discovery script, a number is the rank that is
killed. Rank 0 writes a line a step into steps.jsonl; every rank writes its weights at the end.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

# A rank that waits for one that was killed gives up after this time, if its own neighbour lives.
os.environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] = "20"

import horovod.tensorflow.keras as hvd
import keras
import numpy as np
import tensorflow as tf

FOLDER, DATA = Path(sys.argv[1]), sys.argv[2]
EPOCHS, RATE = 5, 0.05
INPUTS, TARGETS = np.load(FOLDER / "inputs.npy"), np.load(FOLDER / "targets.npy")


class Act(keras.callbacks.Callback):
    """Does what the plan says, and writes down the steps."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def on_train_begin(self, logs=None):
        self.first = self.state.epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = self.first + epoch

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.2)
        for epoch, step, what in json.loads((FOLDER / "plan.json").read_text()):
            if [epoch, step] != [self.epoch, batch]:
                continue
            if what == hvd.rank():
                os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(what, str) and hvd.rank() == 0:
                (FOLDER / "new").write_text(what)
                (FOLDER / "new").rename(FOLDER / "hosts")

    def on_train_batch_end(self, batch, logs=None):
        if hvd.rank() == 0:
            with open(FOLDER / "steps.jsonl", "a") as file:
                print(json.dumps([self.epoch, batch, hvd.size()]), file=file)


def main():
    hvd.init()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    passes = 2 if DATA == "repeat" else 1
    optimizer = keras.optimizers.SGD(RATE, momentum=0.9)
    model.compile(hvd.DistributedOptimizer(optimizer, backward_passes_per_step=passes), "mse")
    state = hvd.elastic.KerasState(model, batch=0, epoch=0, attempts=0)
    resets = []
    state.register_reset_callbacks([lambda: resets.append(hvd.size())])
    # A commit that comes before the others have counted the batch must count it all the same.
    callbacks = [
        Act(state),
        hvd.elastic.CommitStateCallback(state, 3),
        hvd.elastic.UpdateBatchStateCallback(state),
        hvd.elastic.UpdateEpochStateCallback(state),
    ]

    @hvd.elastic.run
    def train(state):
        state.attempts += 1
        data = tf.data.Dataset.from_tensor_slices((INPUTS[:, hvd.rank()], TARGETS[:, hvd.rank()]))
        repeated = {"x": data.repeat(), "steps_per_epoch": len(INPUTS)} if DATA == "repeat" else {"x": data}
        model.fit(**repeated, epochs=EPOCHS - state.epoch, callbacks=callbacks, verbose=0, shuffle=False)
        return state.attempts

    attempts = train(state)
    weights = model.get_weights()[0].ravel().tolist()
    momentum = np.asarray(model.optimizer.variables[-1]).ravel().tolist()
    result = {"weights": weights, "momentum": momentum, "attempts": attempts, "resets": resets, "epoch": state.epoch}
    (FOLDER / f"rank{hvd.rank()}.json").write_text(json.dumps({**result, "size": hvd.size(), "batch": state.batch}))


if __name__ == "__main__":
    main()
