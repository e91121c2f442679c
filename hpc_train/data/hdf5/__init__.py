"""Bytes of HDF5 files without HDF5's lock: where they lie, how they are compressed, and how they are decoded."""
