"""A machine with known constants, simulated rank by rank and message by message, and what a study measures on it."""

import json
from dataclasses import dataclass

import numpy as np

MB = 1e6


@dataclass(frozen=True)
class Machine:
    """All costs are in s."""

    alpha: float = 0.0
    """Of a message."""
    beta: float = 0.0
    """Of a byte."""
    compute: float = 0.1
    """Of the computation in a step."""
    spread: float = 0.0
    """Standard deviation of a rank's step."""
    tail: str = "normal"
    overhead: float = 0.0
    ranks_per_node: int = 10**9

    def ring(self, size: float, ranks: int) -> float:
        """A ring through all ranks in their order: in each round, every rank sends a part on, and all wait."""
        return sum(self.alpha + size / ranks * self.beta for _ in range(2 * (ranks - 1)))

    def tree(self, size: float, ranks: int) -> float:
        """Halving, then doubling; the number of ranks is a power of two."""
        seconds, part, left = 0.0, size, ranks
        while left > 1:
            part, left = part / 2, left // 2
            seconds += 2 * (self.alpha + part * self.beta)
        return seconds

    def shown(self, job: dict, ranks: int, how) -> float:
        """Seconds that all-reduces take after the backward pass, which is the last two thirds of the step."""
        if ranks == 1:
            return 0.0
        control, count = ranks - 1, 0
        while control:
            control, count = control // 2, count + 1
        buckets, free = job["buckets"], 0.0
        for number in range(buckets):
            ready = 0 if job["lag"] else self.compute * (1 / 3 + 2 / 3 * (number + 1) / buckets)
            free = max(free, ready) + how(job["bytes"] / buckets, ranks) + 2 * count * self.alpha
        return max(0.0, free - self.compute)

    def draws(self, draw, steps: int, ranks: int) -> np.ndarray:
        """The s of computation, (steps, ranks)."""
        if self.tail == "normal":
            noise = draw.normal(size=(steps, ranks))
        else:
            noise = (draw.gumbel(size=(steps, ranks)) - np.euler_gamma) * np.sqrt(6) / np.pi
        return self.compute + self.spread * noise


MACHINE = Machine(alpha=200e-6, beta=1 / 500e6)


def measurement(machine: Machine, ranks: int, how="ring", seed=0, rounds=6, steps=200, batch=32, **changes) -> dict:
    """What `bench throughput` would write on this machine."""
    nodes = -(-ranks // machine.ranks_per_node)
    job = {"bytes": 4e6, "buckets": 1, "lag": 0, **changes}
    draw = np.random.default_rng(seed + ranks)
    averaged, alone = (machine.draws(draw, rounds * steps, ranks) for _ in range(2))
    after = machine.overhead + machine.shown(job, ranks, getattr(machine, how))
    together = averaged.max(axis=1) + after
    by_rank = [
        {"rank": rank, "steps": len(own), "mean": own.mean(), "std": own.std(), "max": own.max()}
        | {f"p{part}": np.percentile(own, part) for part in (50, 95, 99)}
        for rank, own in enumerate(alone.T)
    ]
    slow = alone.reshape(rounds, steps, ranks).sum(axis=1).max(axis=1)
    per_node = -(-ranks // nodes)
    figures = {
        "benchmark": "throughput",
        "format": 2,
        "trainer": "mnist",
        "framework": "hpc-train",
        "options": {"data": "shards/mnist", "batch_size": batch, "lag": job["lag"], "bucket_mib": 32.0},
        "data": "0123456789abcdef",
        "model": "deep",
        "batch_size": batch,
        "ranks": ranks,
        "threads": 1,
        "nodes": [
            {"host": f"node{n}", "processor": "Xeon", "cores": 10**4, "gpus": [], "ranks": per_node}
            for n in range(nodes)
        ],
        "versions": {"python": "3.11.7"},
        "gradient_bytes": job["bytes"],
        "parameters": int(job["buckets"] * 32 * 2**20 / 4),
        "rates": {
            "fit": (ranks * batch * steps / together.reshape(rounds, steps).sum(axis=1)).tolist(),
            "fit alone": (ranks * batch * steps / slow).tolist(),
        },
        "steps": {
            "fit alone": {
                "by_rank": by_rank,
                "slowest": alone.max(axis=1).tolist(),
                "fastest": alone.min(axis=1).tolist(),
                "mean": alone.mean(axis=1).tolist(),
            }
        },
    }
    return json.loads(json.dumps(figures))


def write(folder, *figures: dict):
    """Make a study's folder with these measurements."""
    folder.mkdir(exist_ok=True)
    for number, one in enumerate(figures):
        (folder / f"ranks-{one['ranks']:05}-{number}.json").write_text(json.dumps(one))
    return folder
