"""Proves an installed Horovod: real all-reduces on 2 ranks, through MPI and through Gloo."""

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
    """Runs the all-reduces, at most `timeout` seconds each; returns what was seen, in one line.

    Raises UserError where a run fails, hangs, starts ranks that do not know each other, or sums wrongly.
    """
    results = {"MPI": _run_ranks((), timeout), "Gloo": _run_ranks(("--gloo",), timeout)}
    for controller, result in results.items():
        if (result["size"], result["sum"], result["mean"]) != (RANKS, SUM, MEAN):
            raise UserError(
                f"Horovod is installed but wrong over {controller}: {RANKS} ranks summed to {result['sum']} "
                f"in a world of {result['size']}, want {SUM} in {RANKS}: is mpirun another MPI's than mpicxx?"
            )
    result = results["MPI"]
    built = ", ".join(f"{name} {'yes' if result[name] else 'no'}" for name in ("mpi", "gloo", "nccl"))
    line = f"{RANKS}-rank all-reduce right over MPI and Gloo; built: {built}"
    if gpu and not result["nccl"]:
        raise UserError("Horovod was to be built with NCCL but is not: try again with --rebuild")
    if gpu and not result["on_gpu"]:
        line += f"; the GPU path is unproven ({result['gpus']} GPUs here, {RANKS} needed: summed on the CPU)"
    return line


def _run_ranks(options: tuple[str, ...], timeout: float) -> dict:
    """One horovodrun of the all-reduces; what rank 0 reports."""
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
                f"Horovod is installed but `{name}` hung for {timeout:.0f} s; its last lines:\n{last_lines(text)}"
            ) from None
    found = text.partition(allreduce.MARK)[2].partition("\n")[0]
    if process.returncode or not found:
        code, reason = output([sys.executable, "-c", "import horovod.tensorflow"], timeout)
        if code:
            # The launcher hides why the library does not load.
            raise UserError(f"Horovod is installed but does not load: {last_lines(reason, 1)}")
        raise UserError(
            f"Horovod is installed but `{name}` failed (exit code {process.returncode}); its last lines:\n"
            f"{last_lines(text)}"
        )
    # The launcher's tag of the next line may follow on the same one.
    return json.JSONDecoder().raw_decode(found)[0]


def _end(process: subprocess.Popen) -> str:
    """Ends the launcher, which ends its ranks when it gets SIGTERM; returns what they printed."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired as late:
        os.killpg(process.pid, signal.SIGKILL)
        return (late.stdout or b"").decode(errors="replace")
