"""Import TensorFlow without its two lines about oneDNN, which every rank prints at any log level."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOISE = (b"All log messages before absl::InitializeLog()", b"oneDNN custom operations are on")


@contextmanager
def quiet_import() -> Iterator[None]:
    """Hold back standard error while TensorFlow loads; then print all lines but those about oneDNN."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if not any(noise in line for noise in _NOISE):
                    os.write(2, line)
