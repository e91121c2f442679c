"""Takes the lock that HDF5 takes to read a file and says how that went; run as a program, since it may never return."""

import errno
import fcntl
import sys


def lock(path: str) -> str:
    """`works`, `held` by another program, or the name of the error, as of HDF5's H5FD_sec2: flock, shared, no wait."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError as error:
        return "held" if error.errno in (errno.EAGAIN, errno.EACCES) else errno.errorcode.get(error.errno, str(error))
    return "works"


if __name__ == "__main__":
    print(lock(sys.argv[1]))
