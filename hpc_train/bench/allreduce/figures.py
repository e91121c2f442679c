"""From all-reduces' times to figures: what messages hold, statistics, latency and bandwidth. NumPy only."""

import numpy as np

# Values of a message are below it: so their sum is exact in float32 over two million ranks.
_PERIOD = 7


def contribution(rank: int, count: int) -> np.ndarray:
    """What a rank sends, (count,) float32: whole numbers that differ from rank to rank and from place to place."""
    return _repeated((np.arange(_PERIOD) + rank) % _PERIOD, count)


def total(ranks: int, count: int) -> np.ndarray:
    """The sum of all ranks' contributions, (count,) float32."""
    alike = np.bincount(np.arange(ranks) % _PERIOD, minlength=_PERIOD)
    values = (np.arange(_PERIOD)[:, None] + np.arange(_PERIOD)) % _PERIOD
    return _repeated(values @ alike, count)


def of_way(library: str, times: dict[int, list[np.ndarray]], ranks: int) -> dict:
    """Figures of one way.

    Args:
        library: what carries it.
        times: by the bytes of a message, seconds: an array for each round.
        ranks: how many.

    Returns:
        library; sizes: for each size bytes, iterations (counted ones), statistics of all their times in s (mean, min,
        max, p50, p99), rounds (the mean of each round, s), and bandwidths in bytes/s, by the mean; fit: see `fit`.
    """
    sizes = [_of_size(size, by_round, ranks) for size, by_round in times.items()]
    return {"library": library, "sizes": sizes, "fit": fit(list(times), [one["p50"] for one in sizes], ranks)}


def fit(bytes_: list[int], seconds: list[float], ranks: int) -> dict[str, float]:
    """The line latency + bytes * byte_time through times, whose relative errors are the least in square.

    Args:
        bytes_: of each message.
        seconds: of its all-reduce.
        ranks: how many.

    Returns:
        latency (s, of an all-reduce of nothing), byte_time (s a byte of the message), neither below 0; the same as a
        ring's links would have: 2(N - 1) messages of bytes/N one after another, each alpha (s) + its bytes * beta (s a
        byte); error: the median of |line / time - 1|, worst: its largest, at worst_bytes.
    """
    sizes, times = np.asarray(bytes_, float), np.asarray(seconds, float)
    terms = np.stack([1 / times, sizes / times], axis=1)
    # The best line, or where one of its terms were negative the better of the two without one.
    both = np.linalg.lstsq(terms, np.ones(len(times)), rcond=None)[0]
    each = [
        np.where(place == np.arange(2), terms[:, place].sum() / (terms[:, place] ** 2).sum(), 0) for place in (0, 1)
    ]
    lines = [both] if (both >= 0).all() and len(times) > 1 else each
    latency, byte_time = min(lines, key=lambda line: ((terms @ line - 1) ** 2).sum())
    hops = 2 * (ranks - 1)
    errors = np.abs(terms @ [latency, byte_time] - 1)
    return {
        "latency": float(latency),
        "byte_time": float(byte_time),
        "alpha": float(latency / hops),
        "beta": float(byte_time * ranks / hops),
        "error": float(np.median(errors)),
        "worst": float(errors.max()),
        "worst_bytes": bytes_[errors.argmax()],
    }


def _of_size(size: int, by_round: list[np.ndarray], ranks: int) -> dict:
    times = np.concatenate(by_round)
    bandwidth = size / times.mean()
    return {
        "bytes": size,
        "iterations": len(times),
        "mean": float(times.mean()),
        "min": float(times.min()),
        "max": float(times.max()),
        "p50": float(np.percentile(times, 50)),
        "p99": float(np.percentile(times, 99)),
        "rounds": [float(one.mean()) for one in by_round],
        "algorithm_bandwidth": float(bandwidth),
        "bus_bandwidth": float(bandwidth * 2 * (ranks - 1) / ranks),
    }


def _repeated(period: np.ndarray, count: int) -> np.ndarray:
    return np.resize(period.astype("float32"), count)
