"""The suite's own format, HDF5 files `SPLIT-00000-of-00004.h5`, described in FORMAT.md in this folder."""

from hpc_train.faces import lazy

_HOME = {
    "write_shards": "arrays",
    "ShardWriter": "writer",
    "write_encoded_shards": "encoded",
    "EncodedWriter": "encoded",
}

__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
