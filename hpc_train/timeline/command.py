"""`hpc-train timeline FILE`: a page about Horovod's timeline, from the figures of `timeline.summarise`."""

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

# s: an open operation shorter than this is not shown.
_NOTABLE = 0.1


@dataclass(frozen=True)
class TimelineSummary:
    """Summarise Horovod's timeline: what the communication of a run waits for.

    `HOROVOD_TIMELINE=FILE horovodrun ...` writes a timeline of what rank 0 sees; this keeps one of its cores busy. The
    file may be of any size, cut off, or still being written. Horovod records which rank is last only while the ranks
    exchange the names of tensors: in the first steps, or always with HOROVOD_CACHE_CAPACITY=0.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The timeline."""
    top: int = 5
    """How many tensors (those that wait longest) and ranks (those that are last most often) to list."""
    skip: float = 0
    """Seconds to leave out after the first event, for example the tracing of the first step."""
    json: bool = False
    """Print the figures as JSON."""


def run(options: TimelineSummary) -> None:
    """Print the summary.

    Raises:
        UserError: an option is invalid, or the file is not a timeline.
    """
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
        yield f"an all-reduce sends {each} on average, {speed}/s while it runs"
    yield ""
    yield f"{'stage':18}{'at least one tensor':>22}{'sum over tensors':>22}"
    for name, stage in figures["stages"].items():
        if stage["summed"]:
            wall = f"{duration(stage['wall'])} {stage['wall_share']:6.1%}"
            summed = f"{duration(stage['summed'])} {stage['summed_share']:6.1%}"
            yield f"{name:18}{wall:>22}{summed:>22}   {STAGES[name]}"
    idle = f"{duration(figures['idle']['wall'])} {figures['idle']['wall_share']:6.1%}"
    yield f"{'idle':18}{idle:>22}{'':22}   no tensor in any stage"
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
        parts.append("cut off, or still being written")
    return ", ".join(parts)


def _ranks(figures: dict):
    noted = figures["ranks_noted"]
    if not noted["negotiations"]:
        yield "the file does not show which rank was last (with HOROVOD_CACHE_CAPACITY=0 it does)"
        return
    yield (
        f"{noted['negotiations']} of them show which of {figures['ranks']} ranks was last; in {noted['even']} of these "
        "the last two came at the same time"
    )
    if figures["ranks_last"]:
        yield ""
        yield f"{'last rank':>9}{'how often':>18}{'by p50':>10}{'p95':>10}{'max':>10}{'only it missing':>20}"
    for late in figures["ranks_last"]:
        often = f"{late['times']} {late['share']:6.1%}"
        alone = f"{duration(late['alone'])} {late['alone_share']:6.1%}"
        times = "".join(f"{duration(late[key]):>10}" for key in ("p50", "p95", "max"))
        yield f"{late['rank']:9}{often:>18}{times}{alone:>20}"


def _tensors(figures: dict):
    if figures["waiting"]:
        yield ""
        yield f"{'waits':>9}{'mean':>10}{'max':>10}   of a tensor, until its operation begins"
    for one in figures["waiting"]:
        yield f"{one['count']:9}{duration(one['mean']):>10}{duration(one['max']):>10}   {one['name']}"
    yield ""
    yield from _open(figures)


def _open(figures: dict):
    """What a killed run was doing. A run that ended well loses its last events, too, but these are short."""
    waiting = [one for one in figures["open"]["longest"] if one["stage"] == "negotiation" or one["for"] > _NOTABLE]
    for one in waiting:
        ready = one["ranks_ready"]
        came = f", ready on {some(ready)} of {figures['ranks'] or '?'}" if ready else ""
        yield f"at the end of the file: {one['name']}, {one['stage']} for {duration(one['for'])}{came}"
    if waiting and figures["open"]["count"] > len(figures["open"]["longest"]):
        yield f"and {figures['open']['count'] - len(figures['open']['longest'])} more unfinished tensors"


def _spread(times: dict) -> str:
    return ", ".join(f"{key} {duration(times[key])}" for key in ("p50", "p95", "max"))
