"""The statistics of a measurement: rates of rounds, times of steps."""

from math import prod

import numpy as np

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def of_steps(seconds: np.ndarray) -> dict[str, float]:
    """The number of steps, and mean, standard deviation, percentiles and maximum of their times, in s.

    Args:
        seconds: the times of all steps of a rank, (steps,), in s.
    """
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return {
        "steps": int(seconds.size),
        "mean": float(np.mean(seconds)),
        "std": float(np.std(seconds, ddof=1)) if seconds.size > 1 else 0.0,
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(np.max(seconds)),
    }


def ratios(rates: dict[str, list[float]]) -> dict[str, list[float]]:
    """The rate of `fit` over that of each other way that trains, in each round."""
    others = [way for way in rates if way not in ("fit", "input")] if "fit" in rates else []
    return {f"fit / {way}": np.divide(rates["fit"], rates[way]).tolist() for way in others}


def communication_share(rates: dict[str, list[float]], way: str = "device") -> list[float] | None:
    """What the all-reduce adds to a step, as a share of the step: 1 - time(WAY alone) / time(WAY), in each round.

    Returns:
        None if one of the two ways was not measured.
    """
    if way not in rates or f"{way} alone" not in rates:
        return None
    return (1 - np.divide(rates[way], rates[f"{way} alone"])).tolist()


def gradient_bytes(variables, wire_dtype: str) -> int:
    """Bytes that a rank gives to the all-reduces of one step: the gradients of `variables`, in the type they travel."""
    narrow = {"float32": 2} if wire_dtype in ("float16", "bfloat16") else {}
    return sum(prod(v.shape) * narrow.get(v.dtype, _BYTES[v.dtype]) for v in variables)
