"""`hpc-train port`: its options, the files that it reads and writes, and what it prints."""

from __future__ import annotations

import difflib
import importlib.util
import io
import stat
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path
from hpc_train.requirements import pip_install

if TYPE_CHECKING:
    from hpc_train.port.changes import Changes

_SHELLS = (".sh", ".bash", ".sbatch", ".slurm", ".pbs", ".lsf", ".job")


@dataclass(frozen=True)
class Port:
    """Show what a Keras 2 or TensorFlow 1 script needs for Keras 3, as a diff with a reason for each change.

    Also takes shell scripts, where it translates Open MPI's options of mpirun into MPICH's. What it cannot decide is
    named with its line and left alone. The exit status is 0 if nothing is left to decide, 1 if something is, and 2 if a
    file cannot be read.
    """

    scripts: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Python or shell scripts."""
    write: bool = False
    """Write the changes into the files."""


@dataclass(frozen=True)
class _File:
    """A script as it is on disk, and what it needs."""

    path: Path
    text: str
    encoding: str
    changes: Changes

    @property
    def new(self) -> str:
        """Its text with the changes."""
        return self.changes.result().decode()


def run(options: Port) -> None:
    """Print the diffs and reasons, write the files if asked to, and exit with 1 if something is left to decide.

    Raises:
        UserError: LibCST is not installed, or a file cannot be read, understood or written. Nothing is written then.
    """
    if not options.scripts:
        raise UserError("name a script: hpc-train port SCRIPT.py")
    files = [_read(path) for path in dict.fromkeys(options.scripts)]
    for file in files:
        for line in _report(file):
            say(line)
        if options.write and file.new != file.text:
            _write(file)
    changed = sum(file.new != file.text for file in files)
    left = sum(len(file.changes.left) for file in files)
    say(_summary(len(files), changed, left, options.write))
    sys.exit(1 if left else 0)


def _read(path: Path) -> _File:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    is_shell = _is_shell(path, raw)
    try:
        # "utf-8-sig" takes a byte order mark away, and writes it again.
        encoding = "utf-8" if is_shell else tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
        text = raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not text in the encoding that it names: {error}") from error
    return _File(path, text, encoding, _changes(path, text, is_shell))


def _changes(path: Path, text: str, is_shell: bool) -> Changes:
    if is_shell:
        from hpc_train.port import shell_file

        return shell_file.port(text)
    if importlib.util.find_spec("libcst") is None:
        raise UserError(f"port needs LibCST, which is not installed: {pip_install('port')}")
    from hpc_train.port import python_file

    try:
        return python_file.port(text)
    except SyntaxError as error:
        raise UserError(
            f"{path}:{error.lineno}: this is not Python 3 ({error.msg}): correct it, then port it"
        ) from error


def _is_shell(path: Path, raw: bytes) -> bool:
    first = raw.split(b"\n", 1)[0]
    if path.suffix in _SHELLS:
        return True
    if path.suffix in (".py", ".pyw") or (first.startswith(b"#!") and b"python" in first):
        return False
    if first.startswith(b"#!") and b"sh" in first:
        return True
    if path.suffix == ".ipynb":
        raise UserError(f"{path} is a notebook: `jupyter nbconvert --to script {path}` makes a script of it")
    raise UserError(f"{path}: port takes Python scripts (.py) and shell scripts (.sh)")


def _report(file: _File) -> Iterator[str]:
    """The diff, a line for each change, and a line for what is left alone."""
    name = str(file.path)
    before, after = (_lines(text) for text in (file.text, file.new))
    for line in difflib.unified_diff(before, after, name, name):
        yield line.rstrip("\r\n") if line.endswith("\n") else f"{line}\n\\ No newline at end of file"
    for finding in sorted(file.changes.made, key=lambda one: one.line):
        for first, last in file.changes.lines(finding):
            yield f"{name}:{first if first == last else f'{first}-{last}'}: {finding.reason}"
    for finding in sorted(file.changes.left, key=lambda one: one.line):
        yield f"{name}:{finding.line}: left alone: {finding.reason}"


def _lines(text: str) -> list[str]:
    """Lines with their ends; only a line feed ends one, as in a diff."""
    return io.StringIO(text, newline="\n").readlines() if "\n" in text else [text] if text else []


def _write(file: _File) -> None:
    target = file.path.resolve()
    try:
        mode = stat.S_IMODE(target.stat().st_mode)
        with atomic_path(target, "the file is as it was") as temporary:
            temporary.write_bytes(file.new.encode(file.encoding))
        target.chmod(mode)
    except OSError as error:
        raise UserError(f"cannot write {file.path}: {error.strerror}") from error


def _summary(files: int, changed: int, left: int, wrote: bool) -> str:
    def count(number: int, what: str) -> str:
        return f"{number} {what}{'' if number == 1 else 's'}"

    if not changed and not left:
        return f"nothing to change in {count(files, 'file')}"
    does = "changed" if wrote else "to change (--write does it)"
    return f"{count(changed, 'file')} {does}; {count(left, 'place')} left to you"
