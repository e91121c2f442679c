"""The samples of a split: in which files they are, what the files hold, and where the bytes of each sample are."""

from hpc_train.data.catalogue.catalogue import Catalogue

__all__ = ["Catalogue"]
