"""The MNIST trainer, pausing after every step of a job's first start for $PAUSE seconds: time for things to happen."""

import os
import time

from hpc_train import mnist, options, parallel


def callbacks_with_pause(*arguments):
    import keras

    from hpc_train.parallel import sync

    def pause(batch, logs):
        time.sleep(float(os.environ["PAUSE"]))

    return [*sync.callbacks(*arguments), keras.callbacks.LambdaCallback(on_train_batch_end=pause)]


if __name__ == "__main__":
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        parallel.callbacks = callbacks_with_pause
    options.main(mnist.Options, mnist.run, "paused_mnist.py")
