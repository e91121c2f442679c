"""`hpc-train timeline FILE`: what Horovod's timeline says, in a page. See `timeline.summarise`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.timeline.advice import duration, some
from hpc_train.timeline.stages import STAGES
from hpc_train.timeline.summary import summarise
from hpc_train.units import size

# s; what ends in less is no news.
_NOTABLE = 0.1


@dataclass(frozen=True)
class TimelineSummary:
    """Sum up Horovod's timeline, however large or truncated, also of a run that is still writing it.

    `HOROVOD_TIMELINE=FILE horovodrun ...` writes one, as rank 0 sees the run; that keeps one of its cores busy. Which
    rank is last is noted only while the ranks exchange tensors' names: in the first steps, or all the time with
    HOROVOD_CACHE_CAPACITY=0.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The timeline."""
    top: int = 5
    """Number of tensors and of ranks to list: those that wait longest, and those that are last most often."""
    skip: float = 0
    """Leave out this many seconds from the first event on, such as those of tracing."""
    json: bool = False
    """Print the same as JSON."""


def run(options: TimelineSummary) -> None:
    """Print the summary; raises UserError for a file that is no timeline."""
    if options.top < 1 or not options.skip >= 0:
        raise UserError("--top must be at least 1, --skip at least 0")
    figures = summarise(options.file, options.top, options.skip)
    say(json.dumps(figures, indent=2) if options.json else "\n".join(_lines(figures)))


def _lines(figures: dict):
    yield _head(figures)
    for kind, done in figures["operations"].items():
        yield f"{kind}: {done['tensors']} tensors" + (f", {size(done['bytes'])}" if done["bytes"] else "")
    if figures["collectives"]:
        sent = (f"{one['count']} {name} in {duration(one['wall'])}" for name, one in figures["collectives"].items())
        yield f"sent by {', '.join(sent)}"
    if figures["allreduce"]:
        each, speed = (size(figures["allreduce"][key]) for key in ("bytes_each", "bytes_per_second"))
        yield f"an all-reduce carries {each} on average, {speed}/s while it runs"
    yield ""
    yield f"{'stage':18}{'some tensor in it':>22}{'sum over tensors':>22}"
    for name, stage in figures["stages"].items():
        if stage["summed"]:
            wall = f"{duration(stage['wall'])} {stage['wall_share']:6.1%}"
            summed = f"{duration(stage['summed'])} {stage['summed_share']:6.1%}"
            yield f"{name:18}{wall:>22}{summed:>22}   {STAGES[name]}"
    idle = f"{duration(figures['idle']['wall'])} {figures['idle']['wall_share']:6.1%}"
    yield f"{'idle':18}{idle:>22}{'':22}   no tensor on its way"
    yield ""
    yield f"{figures['negotiations']['count']} negotiations, {_spread(figures['negotiations'])}"
    yield from _ranks(figures)
    yield from _tensors(figures)
    yield from (f"advice: {line}" for line in figures["advice"])


def _head(figures: dict) -> str:
    parts = [f"{figures['file']}: {duration(figures['seconds'])}", size(figures["file_bytes"])]
    parts.append(f"{figures['events']} events of {figures['tensors']} tensors")
    if figures["damaged"]:
        parts.append(f"{figures['damaged']} damaged places left out")
    if not figures["complete"]:
        parts.append("cut short, or still being written")
    return ", ".join(parts)


def _ranks(figures: dict):
    noted = figures["ranks_noted"]
    if not noted["negotiations"]:
        yield "the ranks are noted in none of them (HOROVOD_CACHE_CAPACITY=0 has them noted)"
        return
    yield f"{figures['ranks']} ranks are noted in {noted['negotiations']} of them, {noted['even']} of which end even"
    if figures["ranks_last"]:
        yield ""
        yield f"{'last rank':>9}{'how often':>18}{'by p50':>10}{'p95':>10}{'max':>10}{'awaited alone':>20}"
    for late in figures["ranks_last"]:
        often = f"{late['times']} {late['share']:6.1%}"
        alone = f"{duration(late['alone'])} {late['alone_share']:6.1%}"
        times = "".join(f"{duration(late[key]):>10}" for key in ("p50", "p95", "max"))
        yield f"{late['rank']:9}{often:>18}{times}{alone:>20}"


def _tensors(figures: dict):
    if figures["waiting"]:
        yield ""
        yield f"{'waits':>9}{'mean':>10}{'max':>10}   of tensors, until their operation begins"
    for one in figures["waiting"]:
        yield f"{one['count']:9}{duration(one['mean']):>10}{duration(one['max']):>10}   {one['name']}"
    yield ""
    yield from _open(figures)


def _open(figures: dict):
    """What a run that was killed was doing; the last events of one that ended well are lost too, and no news."""
    waiting = [one for one in figures["open"]["longest"] if one["stage"] == "negotiation" or one["for"] > _NOTABLE]
    for one in waiting:
        ready = one["ranks_ready"]
        came = f", ready on {some(ready)} of {figures['ranks'] or '?'}" if ready else ""
        yield f"where the file ends: {one['name']}, {one['stage']} for {duration(one['for'])}{came}"
    if waiting and figures["open"]["count"] > len(figures["open"]["longest"]):
        yield f"and {figures['open']['count'] - len(figures['open']['longest'])} more tensors on their way"


def _spread(times: dict) -> str:
    return ", ".join(f"{key} {duration(times[key])}" for key in ("p50", "p95", "max"))
