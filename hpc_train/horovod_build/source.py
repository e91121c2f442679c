"""Horovod's source: downloaded once, checked, and unpacked."""

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.horovod_build.cache import cache_folder
from hpc_train.horovod_build.shell import install, installed, pip

HOROVOD = "0.28.1"
SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"

# What Horovod's setup.py needs besides pip, and what Horovod needs when it runs.
REQUIREMENTS = ("setuptools", "wheel", "packaging", "cloudpickle", "psutil", "pyyaml")


def install_requirements() -> None:
    """Install the packages that Horovod's build and launcher need, if they are missing."""
    here = installed()
    if missing := [name for name in REQUIREMENTS if name not in here]:
        install(*missing, what="install " + ", ".join(missing))


def fetch_sdist() -> Path:
    """Horovod's source distribution in the cache, downloaded if needed.

    Raises:
        UserError: it cannot be downloaded, or its hash is wrong.
    """
    sdist = cache_folder() / "sdist" / f"horovod-{HOROVOD}.tar.gz"
    if sdist.is_file() and _sha256(sdist) == SDIST_SHA256:
        return sdist
    sdist.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download.", dir=sdist.parent) as folder:
        pip(
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--no-build-isolation",
            "--dest",
            folder,
            f"horovod=={HOROVOD}",
            what=f"download the source of Horovod {HOROVOD}",
        )
        download = Path(folder) / sdist.name
        if not download.is_file() or (found := _sha256(download)) != SDIST_SHA256:
            raise UserError(
                f"horovod-{HOROVOD}.tar.gz of this package index is not the released file (sha256 "
                f"{found if download.is_file() else 'of no file'}, want {SDIST_SHA256}): use another index"
            )
        download.rename(sdist)
    return sdist


def unpack_sdist(folder: Path) -> Path:
    """Unpack Horovod's source in `folder`; return the folder of the source."""
    with tarfile.open(fetch_sdist()) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)
    source = folder / f"horovod-{HOROVOD}"
    shutil.rmtree(source / "horovod.egg-info", ignore_errors=True)
    return source


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
