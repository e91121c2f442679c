"""What does an all-reduce cost? horovodrun -np 4 hpc-train bench allreduce

It sums float32 messages over all ranks. Their sizes double, as in osu_allreduce. There are two ways:

    Horovod   hvd.allreduce in a TensorFlow graph, as the gradients of a training step travel: on GPUs, by NCCL if
              Horovod has it. Each all-reduce begins when the one before has ended. Horovod looks for tensors once in a
              cycle (HOROVOD_CYCLE_TIME, 1 ms by default), so a small message waits up to a cycle and more.
    MPI       mpi4py's Allreduce in place, in the memory of the host, after a barrier that is not counted. It needs an
              MPI launcher, and the same MPI in mpi4py and Horovod. Horovod is shut down during it, because its cycles
              use the same MPI.

Rounds of both ways are interleaved, and each round has every size once. The time of an all-reduce is that of its
slowest rank. The first all-reduce of a size in a round is not counted; its sum is compared with the right one, element
by element.

Bandwidths are defined as in nccl-tests: algorithm bandwidth is message bytes / time. Bus bandwidth is 2(N - 1)/N times
that, which each rank must send and receive at least (Patarasuk and Yuan 2009, theorem 1).
"""

import os
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.json_file import write_json
from hpc_train.parallel.launcher import detect

# All-reduces of each size in each round, at least, however long they take.
_FEWEST = 3
# Horovod's default, in ms.
_CYCLE_TIME = "1"


@dataclass(frozen=True)
class AllreduceBench:
    """Measure all-reduces of growing messages through Horovod, and MPI alone. Start it with two ranks or more."""

    min_bytes: int = 4
    """Bytes of the smallest message; a multiple of 4, because it holds float32."""
    max_bytes: int = 2**26
    """Bytes of the largest message: sizes double from the smallest up to here."""
    seconds: float = 0.05
    """Seconds for one size and way in one round, approximately."""
    iterations: int = 200
    """Largest number of all-reduces of one size and way in one round."""
    rounds: int = 5
    """Rounds. Each has every way and size once. One more goes before them, and is not counted."""
    output: Path | None = None
    """JSON file for the figures, with the nodes, versions and command that they come from."""


def sizes(options: AllreduceBench) -> list[int]:
    """Sizes of the messages, in bytes."""
    return list(takewhile(lambda size: size <= options.max_bytes, (options.min_bytes << n for n in range(63))))


def run(options: AllreduceBench) -> None:
    """Measure, print and write. Collective.

    Raises:
        UserError: impossible options, one rank only, or a wrong sum.
    """
    _check(options)
    _cycle_time()
    _refuse_one(detect().size)
    from hpc_train.bench.allreduce.ways import Horovod, Mpi, mpi_world

    # MPI starts before Horovod, so Horovod leaves it running when it is shut down.
    comm, reason = mpi_world()
    from hpc_train import parallel

    world = parallel.init()
    _refuse_one(world.size)
    from hpc_train.bench import hardware
    from hpc_train.bench.allreduce import figures

    nodes = hardware.nodes()
    horovod = Horovod()
    ways = [horovod, *([Mpi(comm)] if comm else [])]
    times = _measure(options, ways, world)
    horovod.start()
    # The time of the slowest rank: an all-reduce has ended when it has ended everywhere.
    slowest = {
        name: {size: [horovod.most(one) for one in by_round] for size, by_round in of.items()}
        for name, of in times.items()
    }
    if world.is_root:
        found = {way.name: figures.of_way(way.library, slowest[way.name], world.size) for way in ways}
        result = {
            "benchmark": "allreduce",
            "format": 2,
            **_circumstances(options, world.size, nodes),
            "device": horovod.kind,
            "ways": found,
            "left_out": {"MPI": reason} if reason else {},
        }
        from hpc_train.bench.allreduce.report import report

        report(result)
        if options.output:
            _write(options.output, result)


def _check(options: AllreduceBench) -> None:
    if options.min_bytes < 4 or options.min_bytes % 4:
        raise UserError(
            f"--min-bytes is {options.min_bytes}; it must be a multiple of 4, and at least 4: messages hold float32"
        )
    if options.max_bytes < options.min_bytes:
        raise UserError(f"--max-bytes {options.max_bytes} is less than --min-bytes {options.min_bytes}; make it larger")
    if options.iterations < _FEWEST or options.rounds < 1 or options.seconds <= 0:
        raise UserError(f"--iterations must be at least {_FEWEST}, --rounds at least 1, --seconds more than 0")
    if options.output and not options.output.absolute().parent.is_dir():
        raise UserError(f"--output {options.output}: the folder {options.output.parent} does not exist; make it first")
    if options.output and options.output.is_dir():
        raise UserError(f"--output {options.output}: is a folder; name a file in it")


def _cycle_time() -> float:
    text = os.environ.get("HOROVOD_CYCLE_TIME") or _CYCLE_TIME
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"HOROVOD_CYCLE_TIME is {text!r}; it must be a number of ms, such as 0.5") from error


def _refuse_one(ranks: int) -> None:
    if ranks == 1:
        raise UserError("one rank alone sends nothing: start it with horovodrun -np 2 or more").agreed()


def _measure(options: AllreduceBench, ways: list, world) -> dict[str, dict[int, list]]:
    """This rank's seconds by way and size: an array for each round. Collective."""
    import numpy as np

    from hpc_train.bench.allreduce import figures

    found = {way.name: {size: [] for size in sizes(options)} for way in ways}
    counts = {}
    for number in range(options.rounds + 1):
        for place in np.roll(range(len(ways)), -number):
            way = ways[place]
            way.start()
            for size in sizes(options):
                mine = figures.contribution(world.rank, size // 4)
                wrong = not np.array_equal(way.sum(mine), figures.total(world.size, size // 4))
                if way.most(np.array([float(wrong)])).any():
                    raise UserError(
                        f"{way.name} ({way.library}): the sum of {size} bytes over {world.size} ranks is wrong; "
                        "do not train with this"
                    ).agreed()
                if number:
                    found[way.name][size].append(way.times(size // 4, counts[way.name, size]))
                    continue
                took = float(np.median(way.most(way.times(size // 4, _FEWEST))))
                counts[way.name, size] = int(np.clip(options.seconds / max(took, 1e-9), _FEWEST, options.iterations))
            if len(ways) > 1:
                way.stop()
    return found


def _circumstances(options: AllreduceBench, ranks: int, nodes: list[dict]) -> dict:
    from hpc_train.training.run_folder import versions

    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.orig_argv),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "options": asdict(options),
        "ranks": ranks,
        "nodes": nodes,
        "versions": versions(),
        "cycle_time": _cycle_time() / 1e3,
    }


def _write(path: Path, result: dict) -> None:
    write_json(path, result, "give another --output")
    say(f"wrote {path}")
