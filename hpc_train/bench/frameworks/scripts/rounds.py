"""What the scripts share: they read the job, time the ways and write the result. It needs only NumPy."""

import json
import os
import platform
import resource
import socket
import sys
from pathlib import Path

import numpy as np


class Job:
    """The job of a rank: the content of job.json as attributes, and the samples.

    Samples are inputs, (n, height, width, channels) as stored, and targets, int64 (n,).
    """

    def __init__(self):
        self.folder, self.rank = Path(sys.argv[1]), int(sys.argv[2])
        vars(self).update(json.loads((self.folder / "job.json").read_text()))
        self.inputs = np.load(self.folder / "inputs.npy")
        self.targets = np.load(self.folder / "targets.npy")

    def check(self, counted, trained):
        """End with an error if the network's numbers of parameters are not those of the suite's network."""
        if [counted, trained] != self.parameters:
            raise SystemExit(
                f"error: {counted} parameters, {trained} trained; the suite's network has {self.parameters}"
            )

    def shares(self):
        """Indices (b,) of this rank's batches, epoch after epoch, each epoch in a new order."""
        draw = np.random.default_rng(0)
        while True:
            mine = draw.permutation(len(self.inputs))[self.rank :: self.ranks]
            for start in range(0, len(self.inputs) // self.ranks - self.batch_size + 1, self.batch_size):
                yield mine[start : start + self.batch_size]

    def measure(self, ways, barrier):
        """Time every way once in each round, in an order that rotates. A first round is not counted.

        Args:
            ways: functions by name. Each makes the given number of steps, and returns when they began and when each
                step ended, in s.
            barrier: lets all ranks begin together.

        Returns:
            For each way a list for each round: the seconds of its counted steps.
        """
        names, found = list(ways), {name: [] for name in ways}
        for number in range(self.rounds + 1):
            for name in np.roll(names, -number):
                barrier()
                ends = ways[name](self.warmup + self.steps)
                if number:
                    found[name].append(np.diff(ends)[-self.steps :].tolist())
        return found

    def write(self, seconds, versions, gpu=None, gpu_bytes=None):
        """Write the result of this rank.

        Args:
            seconds: as `measure` returns them.
            versions: of the framework, by name.
            gpu: name of the rank's GPU.
            gpu_bytes: the most memory of the GPU that the framework has held.
        """
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
