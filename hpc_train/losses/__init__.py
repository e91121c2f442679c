"""Losses, on logits, in float32; the options that choose one import no Keras."""

import importlib

_HOME = {
    "SmoothedCrossEntropy": "cross_entropy",
    "PixelCrossEntropy": "pixels",
    "FocalLoss": "pixels",
    "DiceLoss": "overlap",
    "TverskyLoss": "overlap",
    "SumOfLosses": "sums",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"hpc_train.losses.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
