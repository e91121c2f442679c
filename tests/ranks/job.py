"""One rank of a job that fails in the way its argument names."""

import sys
import time

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
    comm.barrier()
    if how == "well":
        with agree(comm):
            pass
        assert comm.allgather(comm.rank) == list(range(comm.size))
        assert comm.bcast(comm.rank) == 0
        if comm.rank == 0:
            print(f"{comm.size} ranks")
