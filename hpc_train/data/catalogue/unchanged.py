"""Whether the files of a data set are still those that a training began with."""

import os

from hpc_train.console import say
from hpc_train.data.catalogue.catalogue import Catalogue
from hpc_train.errors import UserError

# Files that a rank looks at in one call; of more, each call takes the next ones.
_AT_ONCE = 1000


class Unchanged:
    """Compares size and time of modification of a rank's share of the files; other ranks look at the others.

    Args:
        catalogue: of files, as they were found.
        rank: of this process, among those that see the same files.
        size: number of these processes.
    """

    def __init__(self, catalogue: Catalogue, rank: int, size: int):
        self._files = [*zip(catalogue.files, catalogue.sizes.tolist(), strict=True)][rank::size]
        self._times: dict[str, tuple[int, int]] = {}
        self._next = 0
        self.check()
        self._next = 0

    def check(self) -> None:
        """Look at the share, or at the next thousand files of it.

        One that has another time only is named in a line.

        Raises:
            UserError: a file was removed, cut or replaced.
        """
        for _ in range(min(_AT_ONCE, len(self._files))):
            path, size = self._files[self._next]
            self._next = (self._next + 1) % len(self._files)
            if why := self._change(path, size):
                raise UserError(f"{path} {why}; put it back as it was and resume, or start a new run")

    def _change(self, path: str, size: int) -> str:
        try:
            status = os.stat(path)
        except OSError as error:
            return f"was there when this run began, and cannot be read any more ({error.strerror})"
        if status.st_size != size:
            return f"had {size} bytes when this run began, and has {status.st_size}: it was cut or replaced"
        now = status.st_ino, status.st_mtime_ns
        before = self._times.setdefault(path, now)
        if before[0] != now[0]:
            return "was replaced while this run read it"
        if before != now:
            # Programs also touch files that must not be purged.
            self._times[path] = now
            say(f"warning: {path} was touched, or written again with the same size, while this run reads it")
        return ""
