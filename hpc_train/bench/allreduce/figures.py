"""The content of messages, and figures from the times of all-reduces: statistics, latency, bandwidth. NumPy only."""

import numpy as np

# Values of a message are below this, so the sum over two million ranks is exact in float32.
_PERIOD = 7


def contribution(rank: int, count: int) -> np.ndarray:
    """The message of a rank, (count,) float32: whole numbers that differ from rank to rank and from place to place."""
    return _repeated((np.arange(_PERIOD) + rank) % _PERIOD, count)


def total(ranks: int, count: int) -> np.ndarray:
    """The sum of all ranks' contributions, (count,) float32."""
    alike = np.bincount(np.arange(ranks) % _PERIOD, minlength=_PERIOD)
    values = (np.arange(_PERIOD)[:, None] + np.arange(_PERIOD)) % _PERIOD
    return _repeated(values @ alike, count)


def of_way(library: str, times: dict[int, list[np.ndarray]], ranks: int) -> dict:
    """Figures of one way.

    Args:
        library: what carries the messages.
        times: in s, an array for each round, by the bytes of a message.
        ranks: how many.

    Returns:
        library; fit: see `fit`; sizes: for each size its bytes, the number of counted iterations, statistics of all
        their times in s (mean, min, max, p50, p99), rounds (the mean of each round in s), and bandwidths in bytes/s,
        from the mean.
    """
    sizes = [_of_size(size, by_round, ranks) for size, by_round in times.items()]
    return {"library": library, "sizes": sizes, "fit": fit(list(times), [one["p50"] for one in sizes], ranks)}


def fit(bytes_: list[int], seconds: list[float], ranks: int) -> dict[str, float]:
    """Fit the line latency + bytes * byte_time to times, by least squares of the relative errors.

    Args:
        bytes_: of each message.
        seconds: of its all-reduce.
        ranks: how many.

    Returns:
        latency: of an empty all-reduce, in s, and byte_time: of a byte of the message, in s; neither is below 0. alpha
        and beta: the same for the links of a ring, which sends 2(N - 1) messages of bytes/N one after another, each in
        alpha (s) + its bytes * beta (s for a byte). error: the median of |line / time - 1|; worst: its maximum, at
        worst_bytes.
    """
    sizes, times = np.asarray(bytes_, float), np.asarray(seconds, float)
    terms = np.stack([1 / times, sizes / times], axis=1)
    # The best line; if one of its terms is negative, the better one of the two lines with a single term.
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
