"""The MNIST trainer; until a checkpoint is resumed, every step is followed by a pause of $PAUSE seconds."""

import os
import sys
import time
from pathlib import Path

from hpc_train import command_line, mnist, parallel


def callbacks_with_pause(*arguments, **named):
    import keras

    from hpc_train.parallel import sync

    def pause(batch, logs):
        time.sleep(float(os.environ["PAUSE"]))

    return [*sync.callbacks(*arguments, **named), keras.callbacks.LambdaCallback(on_train_batch_end=pause)]


if __name__ == "__main__":
    # Not the restart count: a start may have been ended before it had trained at all.
    if not list(Path(sys.argv[sys.argv.index("--run") + 1]).glob("checkpoints/step-*.h5")):
        parallel.callbacks = callbacks_with_pause
    command_line.main(mnist.Options, mnist.run, "paused_mnist.py")
