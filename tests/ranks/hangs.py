"""The MNIST trainer, in which one rank does not go on from some step on: hangs.py FAULT RANK STEP OPTIONS..."""

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from hpc_train import command_line, mnist
from hpc_train.parallel.launcher import detect
from hpc_train.training import fit


def stop():
    """As a debugger, Ctrl-Z or a frozen node does."""
    os.kill(os.getpid(), signal.SIGSTOP)


def kill():
    """As a limit of the site or a person does."""
    os.kill(os.getpid(), signal.SIGKILL)


def node():
    """Until somebody has stopped all processes of this node."""
    time.sleep(100)


def lock():
    """Two threads that each hold what the other one wants."""
    mine, other = threading.Lock(), threading.Lock()

    def holds():
        with other:
            time.sleep(0.2)
            mine.acquire()

    with mine:
        threading.Thread(target=holds, daemon=True).start()
        time.sleep(0.1)
        other.acquire()


def native():
    """A library's call that keeps the interpreter's lock."""
    ctypes.PyDLL(None).sleep(1000)


def other():
    """A collective that the other ranks do not call."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    hvd.allreduce(tf.ones(3), name="of_this_rank_alone")


def slow():
    """Longer than --hang-after, and no hang."""
    time.sleep(8)


def late():
    """In every step, longer than the step of another rank takes."""
    time.sleep(0.03)


def inside(training, rank: int, step: int):
    """Let code in Python that a step calls wait for a lock."""
    import tensorflow as tf

    model, held = training.assembly.model, threading.Lock()
    plain = model.train_step
    held.acquire()

    def waits():
        if training.world.rank == rank and fault.step >= step:
            held.acquire()

    def train_step(data):
        tf.py_function(waits, [], [])
        return plain(data)

    model.train_step = train_step


def crowded(training, rank: int, step: int):
    """A program that nobody knows of shares this rank's core: at nice 5 it takes a quarter of it."""
    if training.world.rank == rank:
        busy = subprocess.Popen(["nice", "-n", "5", sys.executable, "-c", "while True: pass"])
        atexit.register(busy.kill)


def calm(training, rank: int, step: int):
    """No hang: validation and checkpoints that take this rank longer than --hang-after."""
    from hpc_train.training.checkpoint.writer import Writer

    save = Writer.save

    def slowly(self, *arguments):
        time.sleep(12 if training.world.rank == rank else 0)
        return save(self, *arguments)

    Writer.save = slowly
    validate_slowly(training, rank, 3.0)


def validate_slowly(training, rank: int, seconds: float, from_step: int = 0):
    """Let each batch of validation wait on this rank, in the only thread that TensorFlow may have."""
    import tensorflow as tf

    model = training.assembly.model
    plain = model.test_step

    def waits():
        if training.world.rank == rank and fault.step >= from_step:
            time.sleep(seconds)

    def test_step(data):
        tf.py_function(waits, [], [])
        return plain(data)

    model.test_step = test_step


def fewer(training, rank: int, step: int):
    """End this rank's data before those of the others."""
    feed, plain = training.assembly.feed, training.assembly.feed.batches
    if training.world.rank == rank:
        feed.batches = lambda *arguments: plain(*arguments).take(step)


def reads(pipe: Path, from_step: int):
    """From some step on, let the threads that read samples read from a pipe that nobody writes to."""
    from hpc_train.data.reading.reader import Reader

    plain = Reader.begin

    def begin(self, *arguments):
        if fault.step >= from_step:
            pipe.open("rb").read()
        return plain(self, *arguments)

    Reader.begin = begin


class Fault:
    """Counts steps, and calls a function after one."""

    step = 0


fault = Fault()
IN_CALLBACK = {each.__name__: each for each in (stop, kill, node, lock, native, other, slow)}


def main():
    what, rank, step, *options = sys.argv[1:]
    sys.argv[1:] = options
    if what == "crowded":
        # Each rank on a core of its own.
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[detect().rank]})
    plain = fit._callbacks

    def callbacks(training):
        import keras

        class Counts(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                fault.step += 1
                if training.world.rank == int(rank) and fault.step == int(step):
                    # The time of this file is that of the fault.
                    (training.run.path / "fault").write_text(str(os.getpid()))
                    IN_CALLBACK.get(what, lambda: None)()
                if training.world.rank == int(rank) and what == "late":
                    late()

        if what == "read" and training.world.rank == int(rank):
            pipe = training.run.path / "pipe"
            os.mkfifo(pipe)
            reads(pipe, int(step))
        if what == "late":
            validate_slowly(training, int(rank), 0.9, from_step=140)
        if what in ("inside", "fewer", "calm", "crowded"):
            globals()[what](training, int(rank), int(step))
        return [*plain(training), Counts()]

    fit._callbacks = callbacks
    command_line.main(mnist.Options, mnist.run, "hangs.py")


if __name__ == "__main__":
    main()
