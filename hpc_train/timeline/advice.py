"""Advice that follows from the figures of a timeline."""

from collections.abc import Iterator

_MANY = 20
_STUCK = 10
_SMALL = 2**16


def advise(figures: dict) -> list[str]:
    """Lines of advice from the figures of `timeline.summarise`; none if nothing follows from them."""
    return [*_stuck(figures), *_late(figures), *_start(figures), *_sending(figures), *_idle(figures)]


def _stuck(figures: dict) -> Iterator[str]:
    waiting = [one for one in figures["open"]["longest"] if one["stage"] == "negotiation" and one["for"] >= _STUCK]
    if not waiting:
        return
    first = waiting[0]
    text = f"at the end of the file {first['name']} had waited {duration(first['for'])} for ranks that did not come"
    if first["ranks_ready"]:
        missing = sorted(set(range(figures["ranks"] or 0)) - set(first["ranks_ready"]))
        text += f"; {some(first['ranks_ready'])} came"
        text += f", {some(missing)} did not: look at the output of {some(missing)}" if missing else ""
    yield text


def _late(figures: dict) -> Iterator[str]:
    waited = figures["stages"]["negotiation"]["wall_share"]
    noted, ranks = figures["ranks_noted"]["negotiations"], figures["ranks_last"]
    if noted < _MANY or 2 * noted < figures["negotiations"]["count"]:
        if waited >= 0.2:
            yield (
                f"ranks wait for each other {waited:.0%} of the time, and the file does not show for which rank: make "
                "a short run with HOROVOD_CACHE_CAPACITY=0, which records it"
            )
        return
    worst = ranks[0] if ranks else None
    if worst and worst["share"] >= max(0.5, 1.5 / figures["ranks"]) and worst["alone_share"] >= 0.05:
        yield (
            f"rank {worst['rank']} is last in {worst['share']:.0%} of the negotiations, by {duration(worst['p50'])} "
            f"(median); the others wait only for it {worst['alone_share']:.0%} of the time: check its input, its cores "
            "and what else runs on its node"
        )
    elif waited >= 0.2 and 2 * figures["ranks_noted"]["even"] >= noted:
        yield (
            f"negotiation takes {waited:.0%} of the time, although in most negotiations no single rank is late: this "
            "is the cost of the negotiation itself, which fewer and larger operations lower"
        )
    elif waited >= 0.2:
        yield (
            f"ranks wait for each other {waited:.0%} of the time, and no single rank is the cause: the times of their "
            "steps vary, for example because input is late or nodes are shared"
        )


def _start(figures: dict) -> Iterator[str]:
    longest, all_ = figures["negotiations"]["max"], figures["stages"]["negotiation"]["wall"]
    if longest >= max(all_ / 2, figures["seconds"] / 20) > 0:
        yield (
            f"one negotiation took {duration(longest)} of {duration(all_)} in total: if that is the start of training, "
            "leave it out with --skip SECONDS"
        )


def _sending(figures: dict) -> Iterator[str]:
    stages, sent = figures["stages"], figures["allreduce"]
    collective = stages["collective"]
    if sent and sent["bytes_each"] < _SMALL and collective["wall_share"] >= 0.2:
        yield (
            f"an all-reduce sends {sent['bytes_each'] / 1e3:.3g} kB on average, so most of its time is latency: larger "
            "buckets (--bucket-mib) or a longer HOROVOD_CYCLE_TIME send more at once"
        )
    copies = [stages[f"fusion copy {way}"] for way in ("in", "out")]
    wall, share = (sum(one[key] for one in copies) for key in ("wall", "wall_share"))
    if wall > collective["wall"] > 0 and share >= 0.05:
        yield (
            f"copies in and out of the fusion buffer take {duration(wall)}, the collectives "
            f"{duration(collective['wall'])}: memory limits the speed; fewer bytes (--wire-dtype float16) help both"
        )


def _idle(figures: dict) -> Iterator[str]:
    busy = 1 - figures["idle"]["wall_share"]
    if busy <= 0.1 and not any(_stuck(figures)):
        yield f"communication takes {busy:.1%} of the time: it does not limit the speed of this run"


def some(ranks: list[int]) -> str:
    """The first ranks of a list, such as "ranks 0, 2"."""
    listed = ", ".join(map(str, ranks[:8]))
    return f"rank{'s' * (len(ranks) > 1)} {listed}" + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


def duration(seconds: float) -> str:
    """Seconds with a unit, such as 12.3 s, 4.56 ms, 12 us."""
    if round(seconds * 1e6) >= 999_500:
        return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"
    if round(seconds * 1e6) >= 1000:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.0f} us"
