"""`hpc-train predict`: what a trained run makes of data, as numbers, masks and pictures."""

from hpc_train.predict.command import Predict, run
from hpc_train.predict.scores import confusion_matrix, softmax, table

__all__ = ["Predict", "confusion_matrix", "run", "softmax", "table"]
