"""The suite's own format, HDF5 files `SPLIT-00000-of-00004.h5`, described in FORMAT.md in this folder."""
