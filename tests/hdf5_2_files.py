"""Write HDF5 files with the h5py of HDF5 2.0, for readers with an older one.

python hdf5_2_files.py FOLDER
"""

import sys
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5s, h5t

# All types below hold them exactly.
NUMBERS = (np.arange(48) % 5).reshape(4, 3, 4).astype("f4")
LIBVERS = {"default": None, "latest": "latest", "v114": "v114"}
# Each has an index of chunks of its own.
STORAGE = {
    "contiguous": {},
    "single": {"chunks": NUMBERS.shape},
    "fixed": {"chunks": (1, 3, 2)},
    "packed": {"chunks": (2, 2, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "growing": {"chunks": (1, 3, 4), "maxshape": (None, 3, 4)},
    "tree": {"chunks": (1, 2, 4), "maxshape": (None, None, 4), "compression": "lzf"},
}
# Bytes, (sign, exponent's place and bits, mantissa's place and bits), bias.
FLOATS = {
    "bfloat16": (2, (15, 7, 8, 0, 7), 127),
    "float8_e4m3": (1, (7, 3, 4, 0, 3), 7),
    "float8_e5m2": (1, (7, 2, 5, 0, 2), 15),
}


def main(folder: Path) -> None:
    """Write NAME.h5 with data sets named after STORAGE, and a file with the data set x for each of FLOATS."""
    for name, libver in LIBVERS.items():
        with h5py.File(folder / f"{name}.h5", "w", libver=libver) as file:
            for storage, options in STORAGE.items():
                file.create_dataset(storage, data=NUMBERS, **options)
    for name, (size, fields, bias) in FLOATS.items():
        kind = h5t.IEEE_F16LE.copy()
        kind.set_fields(*fields)
        kind.set_ebias(bias)
        kind.set_precision(8 * size)
        kind.set_size(size)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            dataset = h5d.create(file.id, b"x", kind, h5s.create_simple(NUMBERS.shape))
            dataset.write(h5s.ALL, h5s.ALL, NUMBERS)
    with h5py.File(folder / "complex.h5", "w") as file:
        h5d.create(file.id, b"x", h5t.COMPLEX_IEEE_F32LE, h5s.create_simple((4, 2)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
