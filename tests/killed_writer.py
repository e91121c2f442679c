"""Writes checkpoints, is killed at each call that changes a file in turn, and prints how often. Argument: a folder."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from hpc_train.files import whole
from hpc_train.training.checkpoint.folder import Keep, last_whole, publish
from hpc_train.training.checkpoint.state import Part, State


def write(folder, step, parts, token):
    for number in range(parts - 1, -1, -1):
        values = {number: ("weight", np.full(5, float(step)))}
        state = State(step, Part(number, parts, token), "{}", [], values)
        publish(folder, state, Keep(1))


def die_at(call):
    left = [call]

    def dying(function):
        def one(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return one

    for name in ("pwrite", "ftruncate", "fsync", "replace", "unlink", "chmod"):
        setattr(os, name, dying(getattr(os, name)))


kills = 0
for parts in (1, 2):
    call, survived = 0, False
    while not survived:
        folder = Path(sys.argv[1], f"{parts}-{call}")
        folder.mkdir()
        write(folder, 1, parts, "00000a")
        child = os.fork()
        if not child:
            die_at(call)
            # The second time as after a resume, which writes the same step again.
            write(folder, 2, parts, "00000b")
            write(folder, 2, parts, "00000c")
            os._exit(0)
        survived = os.waitpid(child, 0)[1] == 0
        path, damaged = last_whole(folder)
        assert (path is not None, damaged) == (True, []), (parts, call, sorted(folder.iterdir()))
        kills += not survived
        call += 1
        # As a new process, which removes what others have left.
        whole._cleaned.clear()
        write(folder, 3, parts, "00000d")
        assert len(list(folder.iterdir())) == parts, sorted(folder.iterdir())
print(kills)
