"""What the scripts share: reading the job, timing the ways, telling what was found. Needs NumPy alone."""

import json
import os
import platform
import resource
import socket
import sys
from pathlib import Path

import numpy as np


class Job:
    """What a rank is to do: the content of job.json as attributes, and its samples.

    inputs: (n, height, width, channels) as stored; targets: int64 (n,).
    """

    def __init__(self):
        self.folder, self.rank = Path(sys.argv[1]), int(sys.argv[2])
        vars(self).update(json.loads((self.folder / "job.json").read_text()))
        self.inputs = np.load(self.folder / "inputs.npy")
        self.targets = np.load(self.folder / "targets.npy")

    def check(self, counted, trained):
        """End with an error where the network's numbers of parameters are not those of the suite's."""
        if [counted, trained] != self.parameters:
            raise SystemExit(
                f"error: {counted} parameters, {trained} trained; the suite's network has {self.parameters}"
            )

    def shares(self):
        """Indices (b,) of one batch of this rank after the other, epoch after epoch, each in an order of its own."""
        draw = np.random.default_rng(0)
        while True:
            mine = draw.permutation(len(self.inputs))[self.rank :: self.ranks]
            for start in range(0, len(self.inputs) // self.ranks - self.batch_size + 1, self.batch_size):
                yield mine[start : start + self.batch_size]

    def measure(self, ways, barrier):
        """Time every way once a round, in an order that rotates, behind a first round that is not counted.

        ways: functions by name, from a number of steps to when they began and each step ended, in s.
        barrier: lets all ranks begin together.
        Returns, for each way, one list a round: the seconds of its counted steps.
        """
        names, found = list(ways), {name: [] for name in ways}
        for number in range(self.rounds + 1):
            for name in np.roll(names, -number):
                barrier()
                ends = ways[name](self.warmup + self.steps)
                if number:
                    found[name].append(np.diff(ends)[-self.steps :].tolist())
        return found

    def tell(self, seconds, versions, gpu=None, gpu_bytes=None):
        """Write what this rank found."""
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        found = {
            "seconds": seconds,
            "versions": {"python": platform.python_version(), "numpy": np.__version__, **versions},
            "host": socket.gethostname(),
            "processor": next(named, platform.machine()),
            "cores": sorted(os.sched_getaffinity(0)),
            "gpus": [gpu] if gpu else [],
            "host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "gpu_bytes": gpu_bytes,
        }
        (self.folder / f"rank-{self.rank}.json").write_text(json.dumps(found))
