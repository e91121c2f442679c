"""Files whose copy would lack a part: some of their bytes are in other files, which are not staged with them."""

import os
from collections.abc import Sequence

from hpc_train.data.shards.names import parse_shard_name
from hpc_train.errors import UserError


def check_complete(paths: Sequence[str], files: Sequence[str]) -> None:
    """Look into `paths` for links, virtual data sets and external storage.

    Args:
        paths: files to look into; shards and what is not HDF5 hold all that they need.
        files: all files that are staged.

    Raises:
        UserError: one of them leads to a file that is not staged, or by an absolute name to the original.
    """
    from hpc_train.data.hdf5.contents import UNREADABLE
    from hpc_train.data.hdf5.sources import other_files

    staged: set[str] = set()
    for path in paths:
        if parse_shard_name(os.path.basename(path)):
            continue
        try:
            others = list(other_files(path))
        # Staged as bytes all the same.
        except UNREADABLE:
            continue
        staged = staged or set(map(os.path.realpath, files)) if others else staged
        for what, written, place in others:
            if os.path.isabs(written) or os.path.realpath(place) not in staged:
                raise UserError(
                    f"{path}: {what} {written}, which would not be in the copy; stage a folder whose files name each "
                    "other by relative paths, or write shards with `hpc-train shard`"
                )
