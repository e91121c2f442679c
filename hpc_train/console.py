"""Printing under a launcher."""

import sys


def say(text: str, stream=None, end: str = "\n") -> None:
    """Print `text` in one write: launchers put a rank's prefix before each piece that they read."""
    stream = stream or sys.stdout
    stream.write(text + end)
    stream.flush()
