"""Read HDF5 files without HDF5's lock: where the bytes are, how they are compressed, and how to decode them."""
