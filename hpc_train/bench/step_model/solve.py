"""Latency and bandwidth from the seconds by which averaging gradients made steps longer."""

from collections.abc import Callable, Sequence

import numpy as np

from hpc_train.bench.step_model.network import Link

_ROUNDS = 12


def links(exposed: Callable[[Link], np.ndarray], measured: np.ndarray, start: Link) -> Link:
    """The link with which `exposed` comes nearest to what was measured, in least squares; neither constant is below 0.

    What shows of an all-reduce is piecewise linear in both constants: Gauss and Newton's steps end on the right piece.

    Args:
        exposed: s a step, of each measurement, by link.
        measured: the same.
        start: a link of the right order of magnitude, with both constants above 0.
    """
    scale = np.array([start.latency, start.byte_time])
    return _link(_least(lambda share: exposed(_link(share * scale)), measured, np.ones(2)) * scale)


def along(exposed: Callable[[Link], np.ndarray], measured: np.ndarray, direction: Link) -> Link:
    """The same, with a given proportion of the two constants: where measurements cannot tell them apart."""
    scale = np.array([direction.latency, direction.byte_time])
    return _link(_least(lambda share: exposed(_link(share[0] * scale)), measured, np.ones(1))[0] * scale)


def non_negative(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares with one or two unknowns that are at least 0."""
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
