"""The parts of a training step, and other figures of one size from its measurement files."""

from collections.abc import Sequence
from statistics import fmean

# The parts of a step in the order in which they are stacked.
PARTS = ("computing", "slowest rank", "communication", "input wait", "other")


def parts_of(jobs: Sequence[dict], step: float) -> dict[str, float] | None:
    """Divide a step into its parts, in seconds.

    computing: a step of the mean rank on a batch that stays on the device, without all-reduce.
    slowest rank: how much longer the slowest rank takes, in the mean of the steps; all ranks wait for it.
    communication: how much longer a step with all-reduce takes than that: the part that computing does not hide.
    input wait: that of `fit`, which reads data. other: the rest of a step of `fit`. Differences below 0 are noise and
    count as 0.

    Args:
        jobs: measurement files (`bench throughput --output`) of one size.
        step: seconds of a step of `fit`.

    Returns:
        Seconds by part; None if the jobs did not measure computing alone.
    """
    alone, together = ([(job.get("steps") or {}).get(way) for job in jobs] for way in ("device alone", "device"))
    if not all(alone) or not all(together):
        return None
    computing = _mean(alone, "mean")
    slowest = max(0.0, _mean(alone, "slowest") - computing)
    communication = max(0.0, _mean(together, "slowest") - computing - slowest)
    waits = [share for job in jobs for share in (job.get("input_wait") or {}).get("fit") or ()]
    wait = step * fmean(waits) if waits else 0.0
    other = max(0.0, step - computing - slowest - communication - wait)
    return dict(zip(PARTS, (computing, slowest, communication, wait, other), strict=True))


def percentiles_of(jobs: Sequence[dict]) -> dict[int, float]:
    """The 50th, 95th and 99th percentiles of a step of `fit`, in seconds, of the slowest rank; {} if not measured."""
    import numpy as np

    steps = [seconds for job in jobs for seconds in ((job.get("steps") or {}).get("fit") or {}).get("slowest", ())]
    return {place: float(np.percentile(steps, place)) for place in (50, 95, 99)} if steps else {}


def peak_memory_of(jobs: Sequence[dict], where: str) -> int | None:
    """Peak memory, in bytes, of the rank that used most; `where` is "host" or "gpu". None if not measured."""
    known = [(job.get("peak_memory") or {}).get(where) for job in jobs]
    return max((max(ranks) for ranks in known if ranks), default=None)


def timelines_of(jobs: Sequence[dict]) -> list[dict]:
    """The summaries of Horovod's timelines from the jobs that recorded one."""
    return [found for job in jobs if (found := (job.get("communication") or {}).get("timeline"))]


def teraflops_of(jobs: Sequence[dict], samples_per_s: float) -> tuple[float | None, float | None]:
    """TFLOP/s of a rank, and its share of the peak; None if the operations or the peak are not known."""
    flops, peak = (jobs[0].get(name) for name in ("flops_per_sample", "peak_tflops"))
    if not flops:
        return None, None
    rate = flops * samples_per_s / jobs[0]["ranks"] / 1e12
    return rate, rate / peak if peak else None


def _mean(ways: Sequence[dict], name: str) -> float:
    return fmean(seconds for way in ways for seconds in way[name])
