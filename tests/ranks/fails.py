"""Run on N ranks by test_failures.py: the last rank fails as its argument says while the others wait for it."""

import os
import signal
import sys

from hpc_train import parallel
from hpc_train.errors import UserError
from hpc_train.parallel.failure import begin_guard

if sys.argv[1] == "kill":
    # As trainers do.
    begin_guard()
world = parallel.init()

import numpy as np  # noqa: E402

from hpc_train.parallel.collectives import sum_arrays  # noqa: E402

if world.rank == world.size - 1:
    match sys.argv[1]:
        case "raise":
            raise ValueError("the planted bug")
        case "user":
            raise UserError("the planted mistake; fix it")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(7)
sum_arrays([np.ones(3)], "hpc_train.test.waiting")
print("went on")
