"""Another user of this machine, who tries things; a test needs to be root to play him."""

import os
import subprocess
import sys

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")

# The interpreter and its library may be where the other user cannot read: all is imported before he takes over.
_AS_HIM = f"""
import ast, importlib, os, sys
"localhost".encode("idna")  # as sockets do at their first connection
program = sys.argv.pop(1)
for node in ast.walk(ast.parse(program)):
    for imported in node.names if isinstance(node, ast.Import) else ():
        importlib.import_module(imported.name)
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
os.umask(0)
exec(compile(program, "the stranger's", "exec"))
"""


def stranger_command(program: str, *arguments) -> list[str]:
    """The command line by which root runs a Python program as another user."""
    return [sys.executable, "-I", "-c", _AS_HIM, program, *map(str, arguments)]


def stranger(program: str, *arguments, timeout: float = 60) -> subprocess.CompletedProcess:
    """Runs a Python program as another user."""
    command = stranger_command(program, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
