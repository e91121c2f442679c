"""An all-reduce over the ranks through Horovod: is the sum exact, and how fast is it?"""

import statistics
import time

import numpy as np

from hpc_train.doctor.findings import Finding, plural
from hpc_train.requirements import BUILD

# Whole numbers up to here are exact in float16, and so are sums of this many ones.
_EXACT = 2039
_ONES = 8
_SMALL, _FIRST, _LARGE = 2**12, 2**23, 2**26
# s: if the large message would take longer, a smaller one is measured.
_SLOW = 0.25


def code(rank: int, size: int) -> np.ndarray:
    """What a rank contributes to the sum.

    First a vector that holds the rank's own number in its own place: it shows a rank that is lost or counted twice.
    Then eight ones from each of the first 1,024 ranks, so that numbers are added, too. All sums are exact in float16
    for any number of ranks.

    Returns:
        (size + 8,) float64.
    """
    values = np.zeros(size + _ONES)
    values[rank] = 1 + rank % _EXACT
    values[size:] = rank < 1024
    return values


def expected(size: int) -> np.ndarray:
    """The sum of all ranks' codes, (size + 8,) float64."""
    return np.concatenate([1 + np.arange(size) % _EXACT, np.full(_ONES, min(size, 1024))]).astype("float64")


def wrong_sums(rank: int, size: int, device: str) -> list[str]:
    """The dtypes whose sum over the ranks is not exact on this rank. Collective."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    wrong = []
    for dtype in ("float32", "float16"):
        with tf.device(device):
            mine = tf.constant(code(rank, size).astype(dtype))
            total = hvd.allreduce(mine, op=hvd.Sum, name=f"doctor.{dtype}").numpy()
        if not np.array_equal(total.astype("float64"), expected(size)):
            wrong.append(dtype)
    return wrong


def speed(device: str) -> tuple[float, int, float]:
    """Measure a small and a large all-reduce. Collective.

    Returns:
        Seconds of the small message (4 KiB), bytes of the large one, and its seconds; medians of 5.
    """
    small = _median(_SMALL, device)
    large, seconds = _FIRST, _median(_FIRST, device)
    if seconds < _SLOW * _FIRST / _LARGE:
        large, seconds = _LARGE, _median(_LARGE, device)
    return small, large, seconds


def _median(size: int, device: str) -> float:
    import horovod.tensorflow as hvd
    import tensorflow as tf

    with tf.device(device):
        message = tf.zeros(size // 4)
        times = []
        for _ in range(6):
            began = time.perf_counter()
            # `numpy` waits for the result, on a GPU too.
            hvd.allreduce(message, op=hvd.Sum, name=f"doctor.{size}")[:1].numpy()
            times.append(time.perf_counter() - began)
    # The first one makes connections. All ranks take the slowest rank's time, so that all decide alike.
    with tf.device("/cpu:0"):
        slowest = hvd.allreduce(tf.constant(statistics.median(times[1:])), op=hvd.Max, name=f"doctor.time.{size}")
        return float(slowest)


def judge(size: int, wrong: dict[str, list[int]], small: float, large: int, seconds: float, device: str) -> Finding:
    """Judge the sums and times of the all-reduces.

    Args:
        size: number of ranks.
        wrong: for each dtype the ranks on which the sum was not exact.
        small: seconds of a message of 4 KiB.
        large: bytes of the large message.
        seconds: seconds of the large message.
        device: where the messages were.
    """
    what = "all-reduce"
    if bad := {dtype: ranks for dtype, ranks in wrong.items() if ranks}:
        dtype, ranks = next(iter(bad.items()))
        value = f"the sum over {plural(size, 'rank')} is wrong in {' and '.join(bad)}, first on rank {ranks[0]}"
        gpu = " --gpu" if "gpu" in device else ""
        how = f"do not train with this Horovod: build it again ({BUILD}{gpu} --rebuild), or the image that holds it"
        return Finding(what, "wrong", f"{value} ({dtype} on {plural(len(ranks), 'rank')})", how)
    where = "GPUs" if "gpu" in device else "CPUs"
    value = (
        f"exact in float32 and float16 over {plural(size, 'rank')} on {where}; 4 KiB in {small * 1e6:.0f} us, "
        f"{large // 2**20} MiB in {seconds * 1e3:.1f} ms: {large / seconds / 1e9:.2f} GB/s (message bytes / time)"
    )
    return Finding(what, "ok", value)
