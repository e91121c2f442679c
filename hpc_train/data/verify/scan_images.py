"""Check the images of an encoded shard: `hpc-train verify` compares the checksum of each and decodes it."""

import io
import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import xxhash

from hpc_train.data.catalogue.file_info import NOT_CONTIGUOUS, FileInfo
from hpc_train.data.reading.encoded_reader import misshapen
from hpc_train.data.shards.format import MOST_PIXELS

_BLOCK_BYTES = 16 * 2**20


def scan_images(file: h5py.File, info: FileInfo, ranges) -> list[str]:
    """Compare and decode the images of an open shard.

    Args:
        file: the shard.
        info: its description.
        ranges: `scan.ranges`, which makes text of row numbers.

    Returns:
        One line for each kind of damage.
    """
    extents = file["extents"][()]
    sizes = np.diff(extents)
    if (sizes <= 0).any():
        return [f"{ranges(np.flatnonzero(sizes <= 0), 'row')} have no place among the images (extents)"]
    lines, sums = [], None
    if info.at[-1] != NOT_CONTIGUOUS:
        sums = file["checksums/inputs"][()]
    elif "checksums/inputs" in file:
        lines.append(
            "the checksums are not one 64-bit hash for each image, contiguous, with rows 1: nothing was compared"
        )
    differ: list[int] = []
    broken: dict[str, list[int]] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for rows in _blocks(extents):
            begin = extents[rows.start]
            content = file["inputs"][begin : extents[rows.stop]].tobytes()
            images = [content[extents[row] - begin : extents[row + 1] - begin] for row in rows]
            for row, image, problem in zip(rows, images, pool.map(problem_of, images), strict=True):
                if sums is not None and xxhash.xxh3_64_intdigest(image) != int(sums[row]):
                    differ.append(row)
                elif problem:
                    broken.setdefault(problem, []).append(row)
    if differ:
        lines.append(f"{ranges(differ, 'row')} differ from what was written (checksum)")
    return lines + [f"{ranges(rows, 'row')} cannot be decoded ({problem})" for problem, rows in broken.items()]


def problem_of(image: bytes) -> str | None:
    """Why the reader cannot use a JPEG file; None if it can."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(image), formats=["JPEG"]) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                return f"{opened.width} x {opened.height}, more than {MOST_PIXELS} pixels"
            opened.load()
    except UnidentifiedImageError:
        return "not a JPEG file"
    # Pillow raises many kinds of errors for damaged files.
    except (OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError) as error:
        return " ".join(str(error).split())
    # Pillow accepts these.
    return misshapen(image)


def _blocks(extents: np.ndarray):
    """Ranges of rows whose images are about 16 MiB together, at least one row each."""
    start, rows = 0, len(extents) - 1
    while start < rows:
        stop = int(np.searchsorted(extents, extents[start] + _BLOCK_BYTES, side="right")) - 1
        yield range(start, min(rows, max(stop, start + 1)))
        start = max(stop, start + 1)
