"""One rank of a job that fails in the way its argument names."""

import os
import signal
import sys
import time
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.parallel.mpi import agree, job

how = sys.argv[1]
with job() as comm:
    if how == "agreed":
        with agree(comm):
            if comm.rank in (1, 2):
                raise UserError(f"no file on rank {comm.rank}")
    elif how == "all":
        raise UserError("no such folder")
    elif how == "some" and comm.rank in (1, 2):
        raise UserError("no file here")
    elif how == "crash" and comm.rank == 2:
        raise ZeroDivisionError("of two")
    elif how == "late" and comm.rank == 1:
        time.sleep(2)
        raise UserError("found out late")
    elif how == "stopped" and comm.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "killed" and comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "blocked" and comm.rank == 1:
        # The kernel holds a process whose child has yet to become another program, as it does where storage is dead.
        pipe = Path(sys.argv[2])
        os.mkfifo(pipe)
        closed = [(os.POSIX_SPAWN_CLOSE, number) for number in (1, 2, int(os.environ["PMI_FD"]))]
        opened = (os.POSIX_SPAWN_OPEN, 3, pipe, os.O_RDONLY, 0)
        os.posix_spawn("/bin/true", ["true"], {}, file_actions=[*closed, opened])
    elif how == "well" and comm.rank == 1:
        # Longer than any limit that a test sets.
        time.sleep(4)
    comm.barrier()
    if how == "well":
        with agree(comm):
            pass
        assert comm.allgather(comm.rank) == list(range(comm.size))
        assert comm.bcast(comm.rank) == 0
        if comm.rank == 0:
            print(f"{comm.size} ranks")
