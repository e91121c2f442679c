"""`hpc-train stage`: copy a data set to every node's own storage."""

import os
from dataclasses import dataclass
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.parallel.mpi import agree, job


@dataclass(frozen=True)
class Stage:
    """Copy a data set to node-local storage, from any number of ranks on any number of nodes.

    Start it as `mpirun -np 8 hpc-train stage ...` or `srun hpc-train stage ...`; two to four ranks a node are enough.
    Each file is read from the shared file system once and goes to the other nodes over MPI. Every copy is verified by
    checksum. A job that was stopped copies only the missing files when it is started again. Afterwards the folder holds
    these data and no others: copies of earlier data are removed, and data files that no job staged are an error. If
    node-local storage has no file locks, other programs may need HDF5_USE_FILE_LOCKING=FALSE to open the copies; this
    suite opens its data with locking off.
    """

    data: Path
    """A folder, whose HDF5 and NetCDF-4 files are copied; a file; or a pattern in quotes ('runs/*/*.h5')."""
    to: str
    """Folder on the node's own storage. A variable in quotes ('$TMPDIR/data') is expanded on each node."""
    part: bool = False
    """Give each node a part of the files instead of all of them."""
    verify: bool = False
    """Read the copies that are there already, and replace those whose checksum is wrong."""
    retries: int = 3
    """Number of times to repeat a copy that failed or arrived damaged."""


def run(options: Stage) -> None:
    """Stage the data; rank 0 prints.

    Raises:
        UserError: as `stage` does; no such data; a destination inside the data or with an unknown variable.
    """
    with job() as comm:
        stage_to(options, comm)


def stage_to(options: Stage, comm) -> Path:
    """Stage the data and return the path of their copy on this node. Collective; raises as `run` does."""
    from hpc_train.data.catalogue.layout import data_folder, list_files

    files: list[str] = []
    with agree(comm):
        to = _destination(options)
        if comm.rank == 0:
            files = list_files(options.data)
    from hpc_train.data.staging.stage import stage

    root = data_folder(options.data)
    staged = stage(files, root, to, comm, options.part, options.verify, options.retries)
    return staged.directory / options.data.relative_to(root)


def _destination(options: Stage) -> Path:
    if options.retries < 0:
        raise UserError(f"--retries is {options.retries}; it must be 0 or more")
    to = Path(os.path.expandvars(options.to))
    if "$" in str(to):
        raise UserError(f"--to {options.to}: the variable is not set on every rank; give the folder's path instead")
    inside = Path(os.path.realpath(to))
    if options.data.is_dir() and inside.is_relative_to(os.path.realpath(options.data)):
        raise UserError(f"--to {to} lies inside the data {options.data}; stage to a folder outside it")
    return to
