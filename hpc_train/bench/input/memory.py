"""How much memory the reader takes over an epoch."""

from pathlib import Path

from hpc_train.bench.input.steps import Steps


def measure(steps: Steps, threads: int, read_ahead: int | None) -> dict[str, int]:
    """Bytes of this process in memory over an epoch of the plan, without the pages of mapped files.

    Returns:
        start: before the first batch, after the first samples have loaded the libraries; first_half, second_half: the
        maximum in each half of the epoch; end: with the loader closed and the last batch gone; epoch: of all samples;
        bound: what the loader's batches may take above `start`.
    """
    count = steps.plan.steps()
    steps.reader.read(next(steps.batches(0, 1)))
    start = resident()
    most = [0, 0]
    loader = steps.loader(0, count, threads, read_ahead)
    done = 0
    for inputs, _ in iter(loader.next, None):
        done += len(inputs)
        half = 2 * done > count
        most[half] = max(most[half], resident())
    loader.close()
    del loader, inputs
    figures = {"start": start, "first_half": most[0], "second_half": most[1], "end": resident()}
    reading = steps.reading(read_ahead)
    epoch = count * reading.group_bytes // reading.together
    return {**figures, "epoch": epoch, "bound": reading.memory(steps.plan.order)}


def resident() -> int:
    """Bytes of this process in memory, without the pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kinds = ("RssAnon:", "RssShmem:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(kinds))
