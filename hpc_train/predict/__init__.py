"""`hpc-train predict`: the predictions of a trained run as numbers, masks and pictures."""

from hpc_train.predict.command import Predict, run

__all__ = ["Predict", "run"]
