"""One rank of a staging job over two pretended nodes; it logs its reads and may damage what it writes.

Arguments: source folder, folder of the nodes' storage, log of source reads, options as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

from hpc_train.data.catalogue.layout import list_files
from hpc_train.data.staging import broadcast, stage
from hpc_train.data.staging.copying import Copier
from hpc_train.parallel.mpi import job

source, storage, log = map(Path, sys.argv[1:4])
options = json.loads(sys.argv[4])
broadcast.PIECE = 2**16


class Counting(Copier):
    """Logs source reads, and flips a bit in the first `times` copies of each file named in `spoil`."""

    def __init__(self, delay=0.0, spoil=(), times=0, free=None):
        self.delay, self.spoil, self.times, self.space = delay, spoil, times, free
        self.marks = {}

    def open(self, path):
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{os.environ['HPC_TRAIN_NODE']} {Path(path).name}\n".encode())
        os.close(descriptor)
        return super().open(path)

    def write(self, descriptor, data, offset):
        time.sleep(self.delay)
        mark = bytes(data[:4]).decode(errors="replace")
        if offset == 0 and mark in self.spoil and self.marks.get(mark, 0) < self.times:
            self.marks[mark] = self.marks.get(mark, 0) + 1
            data = memoryview(bytes([data[0] ^ 1]) + bytes(data[1:]))
        super().write(descriptor, data, offset)

    def free(self, folder):
        return super().free(folder) if self.space is None else self.space


with job() as comm:
    node = os.environ["HPC_TRAIN_NODE"] = "ab"[comm.rank % 2]
    copier = Counting(**options.pop("on", {}).get(node, {}))
    files = list_files(source) if comm.rank == 0 else []
    if missing := options.pop("missing", None):
        files.append(str(source / missing))
    staged = stage.stage(files, str(source), storage / node, comm, copier=copier, **options)
    reports = comm.gather((node, staged.bytes, staged.reused, staged.read, sorted(staged.files)))
    if comm.rank == 0:
        print("reports", json.dumps(reports))
