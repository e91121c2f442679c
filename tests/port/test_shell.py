"""Launch lines: Open MPI's options become MPICH's, which its mpirun takes."""

import shlex
import subprocess

import pytest
from launch import environment, mpirun

from hpc_train.port.shell_file import port

TYPICAL = (
    "mpirun -np 2 -bind-to none -map-by slot -x NCCL_DEBUG=INFO -x LD_LIBRARY_PATH -x PATH "
    "-mca pml ob1 -mca btl ^openib python train.py\n"
)
CHANGED = [
    (TYPICAL, "mpirun -np 2 -bind-to none -genv NCCL_DEBUG INFO -genvlist LD_LIBRARY_PATH,PATH python train.py\n"),
    ("mpirun --allow-run-as-root -np 2 python x.py\n", "mpirun -np 2 python x.py\n"),
    ("mpirun -np 4 -H a:2,b:2 python x.py && echo ok\n", "mpirun -np 4 -hosts a:2,b:2 python x.py && echo ok\n"),
    ("mpirun -np 4 -npernode 2 python x.py -x 3\n", "mpirun -np 4 -ppn 2 python x.py -x 3\n"),
    ("mpirun -np $N --map-by ppr:4:node python x.py\n", "mpirun -np $N -ppn 4 python x.py\n"),
    ("mpirun -np 2 -bind-to core -map-by slot python x.py\n", "mpirun -np 2 -bind-to core python x.py\n"),
    (
        "mpirun -np 2 \\\n    -mca pml ob1 \\\n    -x A=1 \\\n    python x.py\n",
        "mpirun -np 2 \\\n    -genv A 1 \\\n    python x.py\n",
    ),
    ("/opt/bin/mpirun --tag-output -np 2 python x.py\n", "/opt/bin/mpirun -prepend-rank -np 2 python x.py\n"),
]  # fmt: skip
SAME = [
    "mpirun -np 2 -bind-to none -map-by slot python x.py -x A\n",
    "horovodrun -np 4 -H localhost:4 python x.py\n",
    "# mpirun -x A\nsrun --mpi=pmix python x.py --mca 1\n",
    "echo 'use mpirun'\n",
]


@pytest.mark.parametrize(("before", "after"), CHANGED)
def test_is_changed(before, after):
    changes = port("#!/bin/bash\n" + before)
    assert changes.result().decode() == "#!/bin/bash\n" + after
    assert changes.made
    assert not changes.left
    assert port(changes.result().decode()).made == []


@pytest.mark.parametrize("text", SAME)
def test_needs_nothing(text):
    changes = port(text)
    assert (changes.result().decode(), changes.made, changes.left) == (text, [], [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("mpirun --hostfile hosts -np 2 python x.py\n", "write the file anew"),
        ("mpirun -mca pml ob1 --some-flag -np 2 python x.py\n", "may not know --some-flag: `horovodrun"),
    ],
)
def test_is_named_and_left_alone(line, reason):
    changes = port("\n" + line)
    assert changes.result().decode() == "\n" + line
    assert [(one.line, reason in one.reason) for one in changes.left] == [(2, True)]


@pytest.mark.parametrize(
    "before", [TYPICAL, "mpirun -np 2 -bind-to core -map-by slot -x A=1 --allow-run-as-root python x.py\n"]
)
def test_mpich_takes_the_line(before):
    launcher = mpirun()
    version = subprocess.run([launcher, "--version"], capture_output=True, text=True).stdout
    if "HYDRA" not in version:
        pytest.skip("the mpirun here is not MPICH's")
    words = shlex.split(port(before).result().decode())[1:]
    words = [*words[: words.index("python")], "true"]
    ended = subprocess.run([launcher, *words], env=environment(), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
