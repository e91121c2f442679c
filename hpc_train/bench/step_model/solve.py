"""Latency and bandwidth, from the seconds that averaging gradients adds to steps."""

from collections.abc import Callable, Sequence

import numpy as np

from hpc_train.bench.step_model.network import Link

_ROUNDS = 12


def links(exposed: Callable[[Link], np.ndarray], measured: np.ndarray, start: Link) -> Link:
    """Fit a link to what was measured, by least squares; neither of its constants is below 0.

    The exposed time of all-reduces is piecewise linear in both constants, so Gauss-Newton steps end on the right piece.

    Args:
        exposed: a function of the link that gives the exposed s in a step, for each measurement.
        measured: the same as measured.
        start: a link of the right order of magnitude, with both constants above 0.
    """
    scale = np.array([start.latency, start.byte_time])
    return _link(_least(lambda share: exposed(_link(share * scale)), measured, np.ones(2)) * scale)


def along(exposed: Callable[[Link], np.ndarray], measured: np.ndarray, direction: Link) -> Link:
    """The same with a given proportion of the two constants, for measurements that cannot separate them."""
    scale = np.array([direction.latency, direction.byte_time])
    return _link(_least(lambda share: exposed(_link(share[0] * scale)), measured, np.ones(1))[0] * scale)


def non_negative(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve least squares with one or two unknowns that are at least 0."""
    best, least = np.zeros(columns.shape[1]), float((target**2).sum())
    for free in [[0], [1], [0, 1]] if columns.shape[1] == 2 else [[0]]:
        found = np.linalg.lstsq(columns[:, free], target, rcond=None)[0]
        left = float(((columns[:, free] @ found - target) ** 2).sum())
        if (found >= 0).all() and left < least * (1 - 1e-12):
            best, least = np.zeros(columns.shape[1]), left
            best[free] = found
    return best


def _least(predicted: Callable[[np.ndarray], np.ndarray], measured: np.ndarray, at: np.ndarray) -> np.ndarray:
    best, least = at, np.inf
    for _ in range(_ROUNDS):
        here = predicted(at)
        left = float(((here - measured) ** 2).sum())
        if left >= least * (1 - 1e-9):
            break
        best, least = at, left
        step = 1e-4 * max(1e-3, float(at.max()))
        columns = np.stack([(predicted(at + step * unit) - here) / step for unit in np.eye(len(at))], axis=1)
        at = non_negative(columns, measured - here + columns @ at)
    return best


def _link(constants: Sequence[float]) -> Link:
    return Link(float(constants[0]), float(constants[1]))
