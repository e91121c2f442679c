"""Which samples there are: the files of a split, what they hold, and where the bytes of each sample lie."""

from hpc_train.data.catalogue.catalogue import Catalogue

__all__ = ["Catalogue"]
