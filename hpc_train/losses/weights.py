"""Weights of classes in a loss, from how often they occur."""

import numpy as np

from hpc_train.data.statistics.moments import class_weights

POWERS = {"none": 0.0, "deepcam": -0.125, "inverse-sqrt": -0.5, "inverse": -1.0}


def normalised(counts, power: float) -> np.ndarray:
    """frequency ** power, scaled so that the mean over all pixels counted is 1, float64 (classes,).

    So a learning rate means the same whatever the power. A class that never occurs gets 1.

    counts: pixels of each class. power: see `data.statistics.class_weights`.
    """
    counts = np.asarray(counts, np.float64)
    weights = class_weights(counts, power)
    seen = counts > 0
    if not seen.any():
        return np.ones(len(counts))
    return np.where(seen, weights / np.average(weights, weights=counts), 1.0)
