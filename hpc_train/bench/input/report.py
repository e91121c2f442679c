"""The text that `hpc-train bench input` prints."""

import numpy as np

from hpc_train.bench.comparison import compared
from hpc_train.console import say


def report(figures: dict) -> None:
    """Print the figures of a measurement."""
    options = figures["options"]
    say(
        f"{figures['samples']} samples of {figures['input']}, {figures['sample_bytes'] / 1e6:.6g} MB each "
        f"({figures['stored_sample_bytes'] / 1e6:.6g} MB in the files), {figures['files']} files, layout "
        f"{figures['layout']}"
    )
    for line in figures["reader"]:
        say(f"  {line}")
    slow = f", every read waits {options['latency']:g} ms" if options["latency"] else ""
    slow += f", {options['bandwidth_mib']:g} MiB/s for all" if options["bandwidth_mib"] else ""
    say(
        f"batches of {options['batch_size']}, {options['shuffle']} shuffle, {options['rounds']} rounds, "
        f"{figures['cores']} cores, page cache warm{slow}"
    )
    if figures["ways"]:
        _rates(figures["ways"])
    for name in figures["ratios"]:
        above, below = (figures["ways"][way]["samples_per_second"] for way in name.split(" / "))
        say(f"{name:44} {compared(above, below).text('.3g')}")
    if "memory" in figures:
        _memory(figures["memory"])


def _rates(ways: dict[str, dict]) -> None:
    heads = {"samples/s: median": 18, "min": 11, "max": 11, "GB/s": 9, "GB/core-s": 11}
    heads |= {"GB on disk": 12, "MB memory": 11}
    say(" " * 22 + "".join(f"{head:>{width}}" for head, width in heads.items()))
    for name, way in ways.items():
        rates = way["samples_per_second"]
        line = f"{name:22}{np.median(rates):18.6g}{min(rates):11.5g}{max(rates):11.5g}"
        for samples in (rates, way["samples_per_core_second"]):
            line += f"{np.median(samples) * way['sample_bytes'] / 1e9:{9 if samples is rates else 11}.3f}"
        line += f"{way['bytes_on_disk'] / 1e9:12.3g}{way['memory'] / 1e6:11.0f}"
        say(line + (f"  at most {way['most_reads_at_once']} reads at once" if "most_reads_at_once" in way else ""))
    others = [cores for way in ways.values() for cores in way["other_cores"]]
    say(f"other programs used {np.median(others):.2f} cores meanwhile ({min(others):.2f} to {max(others):.2f})")


def _memory(figures: dict[str, int]) -> None:
    sizes = {name: f"{size / 1e6:.0f} MB" for name, size in figures.items()}
    say(
        f"memory over an epoch of {sizes['epoch']}: {sizes['start']} at the start, at most {sizes['first_half']} in "
        f"its first half and {sizes['second_half']} in its second, {sizes['end']} at the end; batches may take "
        f"{sizes['bound']}"
    )
