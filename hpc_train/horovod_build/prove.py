"""Tests an installed Horovod: all-reduces on 2 real ranks, over MPI and over Gloo."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.horovod_build import allreduce
from hpc_train.horovod_build.shell import last_lines, output

RANKS = 2
SUM = [0.0, 3.0, 6.0, 9.0]  # (1 + 2) · [0, 1, 2, 3]
MEAN = [1.5]  # (1 + 2) / 2


def prove(gpu: bool, timeout: float = 240) -> str:
    """Run the all-reduces over MPI and over Gloo.

    Args:
        gpu: whether the build is for GPUs, so that it must have NCCL.
        timeout: seconds for each run.

    Returns:
        The result in one line.

    Raises:
        UserError: a run fails or hangs, its ranks do not find each other, or a sum is wrong.
    """
    results = {"MPI": _run_ranks((), timeout), "Gloo": _run_ranks(("--gloo",), timeout)}
    for controller, result in results.items():
        if (result["size"], result["sum"], result["mean"]) != (RANKS, SUM, MEAN):
            raise UserError(
                f"Horovod is installed, but its sums over {controller} are wrong: {RANKS} ranks got {result['sum']} "
                f"in a world of {result['size']}, want {SUM} in {RANKS}; check that mpirun and mpicxx are of one MPI"
            )
    result = results["MPI"]
    built = ", ".join(f"{name} {'yes' if result[name] else 'no'}" for name in ("mpi", "gloo", "nccl"))
    line = f"{RANKS}-rank all-reduce right over MPI and Gloo; built: {built}"
    if gpu and not result["nccl"]:
        raise UserError("Horovod should have NCCL, but was built without it: try again with --rebuild")
    if gpu and not result["on_gpu"]:
        line += f"; not tested on GPUs ({result['gpus']} GPUs here, {RANKS} needed: summed on the CPU)"
    return line


def _run_ranks(options: tuple[str, ...], timeout: float) -> dict:
    """Run the all-reduces once with horovodrun; return what rank 0 reports."""
    horovodrun = Path(sysconfig.get_path("scripts")) / "horovodrun"
    command = [sys.executable, str(horovodrun), "-np", str(RANKS), *options, sys.executable, "-m", allreduce.__name__]
    name = " ".join(["horovodrun -np", str(RANKS), *options])
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            text = _end(process)
            raise UserError(
                f"Horovod is installed, but `{name}` hung for {timeout:.0f} s; its last lines:",
                last_lines(text),
            ) from None
    found = text.partition(allreduce.MARK)[2].partition("\n")[0]
    if process.returncode or not found:
        code, reason = output([sys.executable, "-c", "import horovod.tensorflow"], timeout)
        if code:
            # The launcher does not show why the library does not load.
            raise UserError(f"Horovod is installed, but does not load: {last_lines(reason, 1)}")
        raise UserError(
            f"Horovod is installed, but `{name}` failed (exit code {process.returncode}); its last lines:",
            last_lines(text),
        )
    # The launcher's tag of the next line may follow on the same line.
    return json.JSONDecoder().raw_decode(found)[0]


def _end(process: subprocess.Popen) -> str:
    """End the launcher, which ends its ranks when it gets SIGTERM; return what they printed."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired as late:
        os.killpg(process.pid, signal.SIGKILL)
        return (late.stdout or b"").decode(errors="replace")
