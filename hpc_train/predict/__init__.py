"""`hpc-train predict`: what a trained run makes of data, as numbers, masks and pictures."""

from hpc_train.predict.command import Predict, run

__all__ = ["Predict", "run"]
