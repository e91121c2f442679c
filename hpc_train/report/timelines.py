"""The tables and advice from Horovod's timelines of a study: the stages of all-reduces, and the rank that is last."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from hpc_train.report import page
from hpc_train.report.study import Series
from hpc_train.report.study_tables import NONE, percent, place

_STAGES = ("negotiation", "queueing", "waiting for data", "fusion copy in", "collective", "fusion copy out")


def table(series: Sequence[Series]) -> str:
    """Shares of the time with at least one tensor in a stage, a row for each size; empty without timelines.

    The shares come from `hpc_train.timeline.summarise`, averaged over the jobs.
    """
    rows = [(*place(one, row), *_cells(row["timelines"])) for one in series for row in one.rows if row["timelines"]]
    caption = "Horovod's timeline: share of the time with a tensor in each stage (stages overlap)"
    return page.table(caption, ("curve", "scaling", "ranks", *_STAGES, "idle", "last most often"), rows) if rows else ""


def advice(series: Sequence[Series]) -> list[str]:
    """The advice from the timelines of each curve's largest size, each line once."""
    lines = {}
    for one in series:
        row = next((row for row in reversed(one.rows) if row["timelines"]), None)
        for line in row["timelines"][0]["advice"] if row else ():
            lines[f"{one.label}, {row['ranks']} ranks: {line}"] = None
    return list(lines)


def _cells(found: Sequence[dict]) -> list[str]:
    stages = [percent(fmean(one["stages"][name]["wall_share"] for one in found)) for name in _STAGES]
    return [*stages, percent(fmean(one["idle"]["wall_share"] for one in found)), _last(found)]


def _last(found: Sequence[dict]) -> str:
    """The rank that was last in most jobs, and its mean share."""
    worst = [one["ranks_last"][0] for one in found if one["ranks_last"]]
    if not worst:
        return NONE
    ((rank, _),) = Counter(one["rank"] for one in worst).most_common(1)
    return f"rank {rank}, {percent(fmean(one['share'] for one in worst if one['rank'] == rank))}"
