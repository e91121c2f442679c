"""What `hpc-train bench scaling` prints."""

import sys

from hpc_train.console import say


def report(tables: list[dict], left_out: list[str]) -> None:
    """Print the tables; what was left out goes to standard error."""
    for line in left_out:
        say(f"note: {line}", sys.stderr)
    if len(tables) > 1:
        differing = ", ".join(_differences([table["conditions"] for table in tables]))
        say(f"note: the measurements differ in {differing}: {len(tables)} tables, not to be compared\n")
    for number, table in enumerate(tables):
        _print(table, "\n" if number else "")


def _differences(conditions: list[dict]) -> list[str]:
    names = {name: None for one in conditions for name in one}
    return [name for name in names if len({one.get(name) for one in conditions}) > 1]


def _print(table: dict, before: str) -> None:
    sizes, told = table["sizes"], dict(table["conditions"])
    versions = told.pop("versions")
    say(before + ", ".join(f"{name} {value}" for name, value in told.items()))
    say(versions)
    base = f"{sizes[0]['ranks']} rank{'s' * (sizes[0]['ranks'] > 1)}"
    say(f"{'':29}{'fit, samples/s':^24}  {'efficiency against ' + base:^37}  fit / fit alone")
    say(
        f"{'ranks':>6}{'nodes':>7}{'threads':>9}{'jobs':>6} "
        f"{'median':>8}{'min':>8}{'max':>8}  {'fit':>6}{'bare':>8}{'fit alone':>11}{'bare alone':>12}  "
        "median of the rounds"
    )
    for size in sizes:
        say(_row(size))
    if any(size["shared"] for size in sizes):
        say("* ranks share cores or GPUs: says nothing about scaling")
    if len({threads for size in sizes for threads in size["threads"]}) > 1:
        say("ranks of different sizes had different numbers of threads: their efficiency compares unequal ranks")


def _row(size: dict) -> str:
    speed, efficiency, alone = size["samples_per_s"]["fit"], size["efficiency"], size["efficiency_alone"]
    threads = ",".join(map(str, size["threads"]))
    return (
        f"{size['ranks']:5}{'*' if size['shared'] else ' '}{size['nodes']:7}{threads:>9}{len(size['files']):6} "
        + "".join(f"{_rate(speed[name]):>8}" for name in ("median", "min", "max"))
        + f"  {efficiency['fit']:6.3f}{efficiency['bare']:8.3f}{efficiency['fit alone']:11.3f}"
        + f"{efficiency['bare alone']:12.3f}  {alone['median']:.3f} ({alone['min']:.3f} to {alone['max']:.3f})"
    )


def _rate(samples_per_s: float) -> str:
    return f"{samples_per_s:.0f}" if samples_per_s >= 100 else f"{samples_per_s:.3g}"
