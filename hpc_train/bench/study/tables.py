"""The tables of a study: one for each mode and each set of conditions."""

import json
from statistics import fmean

from hpc_train.bench.comparison import compared
from hpc_train.bench.estimate import Estimate, Jobs, of_jobs, paired, ratio
from hpc_train.bench.study.measurements import OURS, Measurement

FIT, ALONE = "fit", "fit alone"


def tables(measurements: list[Measurement]) -> list[dict]:
    """Make the tables. All conditions of a table are the same, except what a sweep sets.

    Returns:
        Tables with `mode` (weak or strong), `conditions` and `rows`. There is a row for each variant of a sweep (the
        first is the base), each peer, and each size, smallest first. Peers have other options and versions, so they are
        in every table of their trainer, model and batch. A row's estimates are {"mean", "error"}, or None if nothing
        was measured:

        samples_per_s    {way: over all ranks}
        efficiency       {way: samples/s of a rank over those of the same variant's smallest size, of `against` ranks}
        alone            fit / fit alone: relative to ranks that train independently on the same nodes
        doubt            why `alone` cannot be, or says little (`doubt`), or None
        ceiling          what `alone` would be if ranks lost time only by waiting for the slowest one in each step
        communication    share of a step that the all-reduce adds to computing
        input_wait       share of a step spent waiting for data, in fit
        over_base        samples/s over those of the base variant at this size; in rows of a sweep
        ours_over_peer   our base variant's samples/s over this peer's; in rows of a peer. This and over_base also have
                         the fields of `Comparison`, from the repeats that have both
    """
    swept = frozenset(name for one in measurements for name, _ in one.variant)
    groups: dict[str, list[Measurement]] = {}
    for mode in ("weak", "strong"):
        for one in measurements:
            if mode in one.modes and one.framework == OURS:
                key = json.dumps([mode, one.conditions(mode, swept)], sort_keys=True)
                groups.setdefault(key, []).append(one)
    found = []
    for key, ours in groups.items():
        mode, conditions = json.loads(key)
        peers = [one for one in measurements if one.framework != OURS and mode in one.modes]
        same = ("trainer", "model", "global batch" if mode == "strong" else "batch size")
        peers = [one for one in peers if all(one.conditions(mode)[name] == conditions[name] for name in same)]
        conditions = ours[0].conditions(mode, swept)  # in the order for people
        found.append({"mode": mode, "conditions": conditions, "rows": _rows(ours, peers)})
    return found


def _rows(ours: list[Measurement], peers: list[Measurement]) -> list[dict]:
    series: dict[tuple, list[Measurement]] = {}
    for one in [*sorted(ours, key=_place), *sorted(peers, key=_place)]:
        series.setdefault((one.framework, one.variant), []).append(one)
    rows, base = [], {}
    for (framework, variant), members in series.items():
        sizes: dict[tuple[int, int], list[Measurement]] = {}
        for one in members:
            sizes.setdefault((one.ranks, len(one.nodes)), []).append(one)
        smallest = sizes[min(sizes)]
        for size, same in sorted(sizes.items()):
            row = {"framework": framework, "variant": dict(variant), **_row(same, smallest)}
            if framework != OURS:
                row["ours_over_peer"] = _compared(base.get(size, []), same)
            elif same[0].place:
                row["over_base"] = _compared(same, base.get(size, []))
            else:
                base[size] = same
            rows.append(row)
    return rows


def _place(one: Measurement) -> tuple:
    return one.framework, one.place, one.variant


def _row(same: list[Measurement], smallest: list[Measurement]) -> dict:
    ways = dict.fromkeys(way for one in same for way in one.rates)
    efficiency = {way: ratio(_a_rank(same, way), _a_rank(smallest, way)) for way in ways}
    if same is smallest:
        efficiency = dict.fromkeys(ways, Estimate(1.0, None))
    alone = _plain(of_jobs([(one.repeat, _quotients(one.rates)) for one in same]))
    return {
        "place": same[0].place,
        "ranks": same[0].ranks,
        "nodes": len(same[0].nodes),
        "threads": sorted({one.threads for one in same}),
        "batch_size": same[0].batch_size,
        "jobs": len(same),
        "files": [one.file for one in same],
        "samples_per_s": {way: _plain(of_jobs(_rates(same, way))) for way in ways},
        "efficiency": {way: _plain(estimate) for way, estimate in efficiency.items()},
        "against": smallest[0].ranks,
        "alone": alone,
        "doubt": doubt(alone),
        "ceiling": _plain(of_jobs([(one.repeat, _ceiling(one)) for one in same])),
        "communication": _plain(of_jobs([(one.repeat, _communication(one)) for one in same])),
        "input_wait": _plain(of_jobs([(one.repeat, _input_wait(one)) for one in same])),
        "shared": any(one.shared for one in same),
    }


def doubt(share: dict | None) -> str | None:
    """Why a share of what ranks reach alone is not to be believed; None where it is.

    Args:
        share: its mean and error.
    """
    if share is None:
        return None
    mean, error = share["mean"], share["error"]
    if mean > 1 + (0.02 if error is None else error):
        return "above 1 by more than its error"
    return "its error is more than a tenth" if error is not None and error > 0.1 * mean else None


def _compared(above: list[Measurement], below: list[Measurement]) -> dict | None:
    one, other = _rates(above, FIT), _rates(below, FIT)
    pairs = paired(one, other)
    found = ratio(one, other)
    return found and found.as_dict() | (compared(*pairs).as_dict() if len(pairs[0]) > 1 else {})


def _rates(jobs: list[Measurement], way: str) -> Jobs:
    return [(one.repeat, one.rates.get(way, [])) for one in jobs]


def _a_rank(jobs: list[Measurement], way: str) -> Jobs:
    return [(one.repeat, [rate / one.ranks for rate in one.rates.get(way, [])]) for one in jobs]


def _quotients(rates: dict[str, list[float]]) -> list[float]:
    return [fit / alone for fit, alone in zip(rates.get(FIT, []), rates.get(ALONE, []), strict=False)]


def _ceiling(one: Measurement) -> list[float]:
    # Nothing synchronises these steps: in each, the slowest rank shows how long a common step would take.
    steps = (one.figures.get("steps") or {}).get(ALONE)
    return [fmean(steps["mean"]) / fmean(steps["slowest"])] if steps and one.ranks > 1 else []


def _communication(one: Measurement) -> list[float]:
    return (one.figures.get("communication") or {}).get("share") or []


def _input_wait(one: Measurement) -> list[float]:
    return (one.figures.get("input_wait") or {}).get(FIT) or []


def _plain(estimate) -> dict | None:
    return estimate.as_dict() if estimate else None
