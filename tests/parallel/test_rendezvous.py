"""horovodrun over several machines hands variables and keys on by ssh's input: no list of processes shows them.

The other machine is this one, by an address that none of its networks has; `ssh` is a script that runs the command.
"""

import os
import shutil
import subprocess
import sys

import pytest

from hpc_train.errors import UserError
from hpc_train.horovod_build import patches, rendezvous, source

# ssh's own options and the host come first. Only what the command says or reads reaches the other machine.
SSH = """#!/bin/bash
while [ $# -gt 0 ]; do
  case $1 in -o | -p | -i) shift 2 ;; *) shift; break ;; esac
done
while [ "$1" = -o ]; do shift 2; done
echo "$*" >>"$0.log"
cd / && exec env -i PATH="$PATH" PYTHONPATH='TREE' sh -c "$*"
"""
SHOW = """
import os, sys
names = ("HOROVOD_RANK", "TRICKY", "HOROVOD_GLOO_RENDEZVOUS_ADDR")
print("rank", *[os.environ[name] for name in names], os.getcwd(), sys.argv[1:], repr(sys.stdin.read()))
"""


@pytest.fixture
def tree(tmp_path):
    """The launcher of Horovod's released source, patched."""
    try:
        unpacked = source.unpack_sdist(tmp_path)
    except UserError as error:
        pytest.skip(f"no source of Horovod: {error}")
    patches.apply(unpacked, "test", None, files=(*rendezvous.FILES, patches.MPI_RUN))
    folder = tmp_path / "tree"
    for part in ("runner", "common"):
        shutil.copytree(unpacked / "horovod" / part, folder / "horovod" / part)
    for name in ("__init__.py", "hpc_train_build.py", "hpc_train_token.py"):
        shutil.copy(unpacked / "horovod" / name, folder / "horovod")
    return folder


@pytest.mark.parametrize("network", [("--network-interface", "lo"), ()], ids=["named network", "found network"])
def test_other_machines_get_variables_and_keys_by_no_command_line(tree, tmp_path, network):
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH.replace("TREE", str(tree)))
    ssh.chmod(0o755)
    tricky = 'it\'s; "so" $x `date`'
    env = {**os.environ, "PATH": f"{ssh.parent}:{os.environ['PATH']}", "PYTHONPATH": str(tree), "TRICKY": tricky}
    words = ("--gloo", *network, "--disable-cache", "-np", "2", "-H", "127.0.0.9:1,localhost:1")
    command = [sys.executable, "-m", "horovod.runner.launch", *words, sys.executable, "-c", SHOW, "a b", "$HOME;"]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for rank in (0, 1):
        [line] = [line for line in ended.stdout.splitlines() if f"rank {rank} " in line]
        assert f"rank {rank} {tricky} " in line
        assert line.endswith(f"{tmp_path} ['a b', '$HOME;'] ''")
        token = line.partition("/")[2].split()[0]
        assert len(token) == 32
    told = (ssh.parent / "ssh.log").read_text()
    assert "TRICKY" not in told
    assert token not in told
    # What the task services get: two numbers and addresses in the command, the key in the input.
    asked = [line for line in told.splitlines() if "task_fn" in line]
    assert len(asked) == (0 if network else 1)
    assert all(line.endswith(" -") for line in asked)
