"""The MNIST trainer, in which one signal reaches rank 1 alone: stops.py SIGNAL train|test STEP [trainer's options]

train: before the STEP-th step of the run; test: before the second batch of the validation after that step.
"""

import os
import signal
import sys
import time

from hpc_train import command_line, mnist

number, where, step = signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3])


def run(options):
    from hpc_train.training.callbacks import Checkpoints

    method = f"on_{where}_batch_begin"
    original = getattr(Checkpoints, method)

    def signalled(self, batch, logs=None):
        # An epoch of the digits is over in less than a second: ask before every step.
        self.training.seconds = self.validation.seconds = 0.0
        if self.world.rank == 1 and self.progress.step == step and batch == (1 if where == "test" else batch):
            os.kill(os.getpid(), number)
            # A thread takes it, whenever it gets a core.
            while number not in self.requests.received:
                time.sleep(0.01)
        original(self, batch, logs)

    setattr(Checkpoints, method, signalled)
    mnist.run(options)


command_line.main(mnist.Options, run, "stops.py", sys.argv[4:])
