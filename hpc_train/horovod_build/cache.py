"""The cache of built wheels, `<cache>/horovod/<key>/`. The key is a hash of everything that changes the binary."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import platformdirs

PARTS = "parts.json"


def cache_folder() -> Path:
    """The folder in HPC_TRAIN_CACHE, or else the user's cache folder for this program."""
    if folder := os.environ.get("HPC_TRAIN_CACHE"):
        return Path(folder).expanduser().absolute()
    return platformdirs.user_cache_path("hpc-train")


def key_of(parts: Mapping[str, str]) -> str:
    """The cache key of a build with these `parts`, in any order: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()[:16]


def find_wheel(key: str) -> Path | None:
    """The cached wheel of `key`; None if there is none, or it is damaged."""
    for wheel in sorted((cache_folder() / "horovod" / key).glob("*.whl")):
        try:
            with zipfile.ZipFile(wheel) as archive:
                if archive.testzip() is None:
                    return wheel
        except (OSError, zipfile.BadZipFile):
            continue
    return None


def store_wheel(key: str, wheel: Path, parts: Mapping[str, str]) -> Path:
    """Put a wheel into the cache, with its parts as readable text; either all of it or nothing.

    If two builds end at the same time, the later one replaces the earlier one: both are the same build.

    Args:
        key: the key of the build.
        wheel: the wheel's file.
        parts: everything that changes the binary, from which the key is made.

    Returns:
        The wheel in the cache.
    """
    folder = cache_folder() / "horovod"
    folder.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=folder))
    try:
        incoming.chmod(0o755)
        shutil.copy(wheel, incoming)
        (incoming / PARTS).write_text(json.dumps(dict(parts), indent=2, sort_keys=True) + "\n")
        place = folder / key
        while True:
            try:
                incoming.rename(place)
                return place / wheel.name
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                _set_aside(place)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _set_aside(place: Path) -> None:
    """Remove the folder `place` in one step; it may be gone already."""
    rubbish = Path(tempfile.mkdtemp(prefix=f".{place.name}.old.", dir=place.parent))
    try:
        place.rename(rubbish / place.name)
    except FileNotFoundError:
        pass
    finally:
        shutil.rmtree(rubbish, ignore_errors=True)
