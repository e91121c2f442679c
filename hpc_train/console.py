"""Printing under a launcher."""

import sys

# Seconds that launchers need to read what a rank has printed: when it ends with an error, srun may drop the rest.
HEARD = 0.3


def say(text: str, stream=None, end: str = "\n") -> None:
    """Print `text` in one write: launchers put a rank's prefix before each piece that they read."""
    stream = stream or sys.stdout
    stream.write(text + end)
    stream.flush()
