"""The text that `hpc-train bench allreduce` prints."""

from hpc_train.bench.hardware import shared
from hpc_train.console import say


def report(result: dict) -> None:
    """Print the table, the fit of each way, and the limits of both."""
    nodes, ways = result["nodes"], result["ways"]
    hosts = f"{len(nodes)} node{'s' * (len(nodes) > 1)}"
    say(f"{result['ranks']} ranks on {hosts}, sums of float32; times of the slowest rank; GB/s: algorithm / bus")
    heads = (f"{name} ({way['library']}), us" for name, way in ways.items())
    say(f"{'':>11}" + "".join(f"  {head:^46}" for head in heads))
    of_way = f"  {'mean':>9}{'p50':>9}{'p99':>9}{'GB/s':>19}"
    say(f"{'bytes':>11}" + of_way * len(ways) + "  Horovod / MPI" * (len(ways) > 1))
    for rows in zip(*(way["sizes"] for way in ways.values()), strict=True):
        ratio = f"{rows[0]['p50'] / rows[-1]['p50']:15.2f}" if len(rows) > 1 else ""
        say(f"{rows[0]['bytes']:11,}" + "".join(map(_cells, rows)) + ratio)
    for name, way in ways.items():
        say(_line(name, way["fit"], result["ranks"]))
    say(
        f"Horovod looks for tensors at most every {1e3 * result['cycle_time']:g} ms (HOROVOD_CYCLE_TIME): "
        "its times include the wait for the next cycle"
    )
    for name, reason in result["left_out"].items():
        say(f"no {name}: {reason}")
    if shared(nodes):
        say("ranks share cores or GPUs: these times include the ranks' waiting for each other")


def _cells(row: dict) -> str:
    times = "".join(f"{_number(1e6 * row[name]):>9}" for name in ("mean", "p50", "p99"))
    bandwidths = " / ".join(f"{1e-9 * row[f'{name}_bandwidth']:.3f}" for name in ("algorithm", "bus"))
    return f"  {times}{bandwidths:>19}"


def _line(name: str, fit: dict, ranks: int) -> str:
    def speed(byte_time: float) -> str:
        return f"{1e-9 / byte_time:.3g} GB/s" if byte_time else "any speed"

    return (
        f"{name}: {_number(1e6 * fit['latency'])} us + bytes at {speed(fit['byte_time'])}, off by {fit['error']:.0%} "
        f"in the median, by {fit['worst']:.0%} at {fit['worst_bytes']:,} bytes; "
        f"as a ring of {ranks}: alpha {_number(1e6 * fit['alpha'])} us, beta {speed(fit['beta'])}"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
