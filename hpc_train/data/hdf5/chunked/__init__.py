"""Chunked data sets: where their chunks are, and how they are decoded, in threads and without the lock of HDF5."""
