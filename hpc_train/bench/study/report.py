"""The text that `hpc-train bench scaling` prints."""

import sys

from hpc_train.bench.comparison import Comparison
from hpc_train.bench.study.measurements import OURS
from hpc_train.bench.study.tables import FIT
from hpc_train.console import say

DISTURBED = "other programs ran, or the rounds were short: measure again with more --rounds or --repeats"
_HEAD = f"{'ranks':>6}{'nodes':>7}{'threads':>9}{'batch':>7}{'jobs':>6}{'samples/s':>18}{'efficiency':>17}"
_HEAD += f"{'fit / alone':>17}{'ceiling':>9}{'communication':>17}{'input wait':>12}"


def report(tables: list[dict], left_out: list[str]) -> None:
    """Print the tables, and the notes on what was left out to standard error."""
    for line in left_out:
        say(f"note: {line}", sys.stderr)
    for mode in ("weak", "strong"):
        alike = [table for table in tables if table["mode"] == mode]
        if len(alike) > 1:
            differing = ", ".join(_differences([table["conditions"] for table in alike]))
            say(f"note: the measurements differ in {differing}: {len(alike)} tables, which cannot be compared\n")
    for number, table in enumerate(tables):
        _print(table, "\n" if number else "")


def _differences(conditions: list[dict]) -> list[str]:
    names = {name: None for one in conditions for name in one}
    return [name for name in names if len({one.get(name) for one in conditions}) > 1]


def _print(table: dict, before: str) -> None:
    rows, given = table["rows"], table["conditions"]
    strong = "global batch" in given
    batch = f"global batch {given['global batch']}" if strong else f"batch {given['batch size']} a rank"
    say(f"{before}{table['mode']} scaling of {given['trainer']} {given['model']}, {batch}, data {given['data']}")
    say(f"processor {given['processor']}, GPU {given['GPU']}; {given['versions']}")
    base = next((row["variant"] for row in rows if not row["place"]), {})
    series: dict[str, list[dict]] = {}
    for row in rows:
        series.setdefault(_label(row, base), []).append(row)
    for label, members in series.items():
        compared = next((title for key, title in _COMPARED.items() if any(row.get(key) for row in members)), "")
        if len(series) > 1:
            say(f"{label}:")
        say(f"{_HEAD}{compared:>18}".rstrip())
        for row in members:
            say(_row(row))
        for row, ratio in ((row, row.get("over_base") or row.get("ours_over_peer")) for row in members):
            if ratio and "ratio" in ratio:
                say(f"{compared}, {row['ranks']} ranks: {Comparison.of(ratio).text()}")
    _notes(rows)


_COMPARED = {"over_base": "/ base", "ours_over_peer": "hpc-train / this"}


def _label(row: dict, base: dict) -> str:
    if row["framework"] != OURS:
        return row["framework"]
    changed = {name: value for name, value in row["variant"].items() if base.get(name) != value}
    return ", ".join(f"{name} {value}" for name, value in (changed or row["variant"]).items()) or OURS


def _row(row: dict) -> str:
    threads, compared = ",".join(map(str, row["threads"])), row.get("over_base") or row.get("ours_over_peer")
    return (
        f"{row['ranks']:5}{'*' if row['shared'] else ' '}{row['nodes']:7}{threads:>9}{row['batch_size']:7}"
        f"{row['jobs']:6}{_rate(row['samples_per_s'].get(FIT)):>18}{_share(row['efficiency'].get(FIT)):>17}"
        f"{_share(row['alone']) + '!' * bool(row['doubt']):>17}{_share(row['ceiling'], False):>9}"
        f"{_percent(row['communication']):>17}{_percent(row['input_wait'], 2):>12}"
        + (f"{_ratio(compared):>18}" if compared else "")
    )


def _notes(rows: list[dict]) -> None:
    against = {row["against"] for row in rows}
    say(f"efficiency: samples/s of a rank over those of {_listed(against)} rank{'s' * (against != {1})}")
    if any(row["ceiling"] for row in rows):
        say("ceiling: what fit / alone would be if ranks lost time only by waiting for the slowest one in each step")
    if doubts := dict.fromkeys(row["doubt"] for row in rows if row["doubt"]):
        say(f"! fit / alone is not to be believed: {' or '.join(doubts)}; {DISTURBED}")
    if any(row["jobs"] > 1 for row in rows):
        say("±: standard error over jobs" + ("; of one job, over its rounds" * any(row["jobs"] == 1 for row in rows)))
    else:
        say("±: standard error over the rounds of one job; use --repeats to see how far jobs differ")
    if any(row["shared"] for row in rows):
        say("* ranks share cores or GPUs: this says nothing about scaling")
    if len({threads for row in rows for threads in row["threads"]}) > 1:
        say("ranks had different numbers of threads, so the table compares unequal ranks; give --threads")


def _listed(numbers) -> str:
    return " or ".join(map(str, sorted(numbers)))


def _rate(estimate: dict | None) -> str:
    if not estimate:
        return "-"
    digits = 0 if estimate["mean"] >= 100 else 2
    return f"{estimate['mean']:.{digits}f}" + _error(estimate, digits)


def _share(estimate: dict | None, with_error: bool = True) -> str:
    return f"{estimate['mean']:.3f}{_error(estimate, 3) if with_error else ''}" if estimate else "-"


def _ratio(estimate: dict) -> str:
    return f"{estimate['ratio']:.3f}" if "ratio" in estimate else _share(estimate)


def _percent(estimate: dict | None, digits: int = 1) -> str:
    if not estimate:
        return "-"
    percent = {name: value and 100 * value for name, value in estimate.items()}
    return f"{percent['mean']:.{digits}f}" + (_error(percent, digits) if digits == 1 else "") + " %"


def _error(estimate: dict, digits: int) -> str:
    return "" if estimate["error"] is None else f" ± {estimate['error']:.{digits}f}"
