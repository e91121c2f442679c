"""Files to stage, for the tests of staging."""

import numpy as np

# Bytes; pieces are 64 KiB in these tests: none, less than one, exactly one and four, several and a rest.
SIZES = [0, 1, 2**16, 2**16 + 1, 2**18, 300_000, 500_001, 1_000_000, 77, 4321, 123_456, 65_535]


def make_source(folder):
    """Make a folder of files with different content; each begins with its number."""
    draw = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        path = folder / "source" / ("train" if number % 2 else "test") / f"{number:02d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((b"%04d" % number + draw.bytes(size))[:size])
    return folder / "source"


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*.h5")}
