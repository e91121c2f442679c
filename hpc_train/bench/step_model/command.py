"""`hpc-train bench predict`: predictions for sizes that were not run, and the model beside published figures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpc_train.bench.step_model.describe import describe
from hpc_train.bench.step_model.fitted import Fitted, fit_study
from hpc_train.bench.step_model.published import SPREAD, table
from hpc_train.bench.study.plan import sizes_of
from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.units import number

# Predicted by default, besides the sizes measured.
_SIZES = (8, 64, 512, 4096, 27360)


@dataclass(frozen=True)
class PredictScaling:
    """Fit a model of a step's time to a study, and predict speed and efficiency of sizes that were not run.

    A step has three parts: computation, the wait for the slowest rank, and the part of the all-reduces that does not
    hide behind computation, by latency and bandwidth. The printed band holds 90 % of the fits to resampled
    measurements.
    """

    study: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a study, as `hpc-train bench scaling` makes it."""
    np: str = ""
    """Numbers of ranks to predict, as in 64,512,27360."""
    allreduce: tuple[Path, ...] = ()
    """Latency and bandwidth, from files of `hpc-train bench allreduce`: one file, or two, one measured on one node and
    one on several."""
    algorithm: Literal["ring", "tree"] | None = None
    """How ranks reduce; by default the one that fits better, or tree. MPI and NCCL use trees for many ranks, Gloo a
    ring."""
    mode: Literal["weak", "strong"] | None = None
    """The curve of the study to use; by default the one with more sizes."""
    crowded: bool = False
    """Also fit sizes whose ranks share cores or GPUs, to try the model without a larger machine."""
    published: bool = False
    """Print published efficiencies beside those of the model, from the bandwidths of those machines. It needs no
    study."""
    json: bool = False
    """Print the figures as JSON."""


def run(options: PredictScaling) -> None:
    """Predict and print.

    Raises:
        UserError: neither a study nor --published, or a study that is too small.
    """
    if options.study is None and not options.published:
        raise UserError("nothing to predict: name the folder of a study, or give --published")
    fitted = _fitted(options) if options.study else None
    wanted = sizes_of(options.np) if options.np else []
    rows = table() if options.published else []
    if options.json:
        say(json.dumps({**(_figures(fitted, wanted) if fitted else {}), "published": rows}, indent=2))
        return
    if fitted:
        _print(fitted, wanted)
    if rows:
        _print_published(rows, "\n" if fitted else "")


def _fitted(options: PredictScaling) -> Fitted:
    if not options.allreduce:
        return fit_study(options.study, None, options.algorithm, options.mode, options.crowded)
    from hpc_train.bench.step_model.given_links import network_of

    network = network_of(options.allreduce, options.algorithm or "tree")
    return fit_study(options.study, network, None, options.mode, options.crowded)


def _sizes(fitted: Fitted, wanted: list[int]) -> list[int]:
    measured = [size.ranks for size in fitted.curve.sizes]
    most = fitted.constants.batch_size(1) if fitted.curve.mode == "strong" else max(_SIZES)
    more = wanted or [size for size in _SIZES if measured[-1] < size <= most]
    return sorted({*measured, *more})


def _figures(fitted: Fitted, wanted: list[int]) -> dict:
    sizes = _sizes(fitted, wanted)
    return {
        "predictions": fitted.predict(sizes),
        "measured": {size.ranks: size.samples_per_s.mean for size in fitted.curve.sizes},
        "holdout": fitted.holdout,
        "sweep": fitted.sweep,
        "remedies": fitted.remedies(sizes[-1]),
        "described": describe(fitted),
    }


def _print(fitted: Fitted, wanted: list[int]) -> None:
    measured = {size.ranks: size.samples_per_s.mean for size in fitted.curve.sizes}
    sizes = _sizes(fitted, wanted)
    say(f"{'':6}{'ms a step, of it':^53}{'':4}{'efficiency':^24}{'':4}{'samples/s':^22}")
    heads = ("step", "compute", "slowest", "averaging", "(hidden)", "predicted", "band 90 %", "predicted", "measured")
    widths = (10, 10, 10, 12, 11, 12, 16, 13, 13)
    say(f"{'ranks':>6}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for row in fitted.predict(sizes):
        parts = [row["step"], row["compute"], row["spread"], row["exposed"] + row["overhead"], row["hidden"]]
        cells = [f"{1e3 * part:.4g}" for part in parts]
        cells += [f"{row['efficiency']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", number(row["samples_per_s"])]
        cells.append(number(measured[row["ranks"]]) if row["ranks"] in measured else "-")
        say(f"{row['ranks']:6}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    for line in describe(fitted):
        say(line)
    changes = ", ".join(f"{name} x {factor:.3f}" for name, factor in fitted.remedies(sizes[-1]).items())
    say(f"what would change samples/s at {sizes[-1]} ranks, by the model: {changes}")


def _print_published(rows: list[dict], before: str) -> None:
    heads = f"{'ranks':>7}{'published':>11}{'by bandwidth':>14}{'and spread':>12}{'off by':>8}{'needed':>8}"
    say(f"{before}{'efficiency':14}{heads}")
    for source in dict.fromkeys(row["source"] for row in rows):
        say(source)
        for row in (row for row in rows if row["source"] == source):
            needed = f"{row['needed']:.1%}" if row["needed"] is not None else "none"
            say(
                f"  {row['network']:12}{row['ranks']:7,}{row['published']:11.3f}{row['predicted']:14.3f}"
                f"{row['with_spread']:12.3f}{row['difference']:+8.3f}{needed:>8}"
            )
    say("by bandwidth: from published speeds of one GPU and of the links; nothing is fitted")
    say(f"and spread: also with the slowest of these GPUs, if steps vary by {SPREAD:.1%} (standard deviation, normal)")
    say("needed: the spread that would explain the whole loss; bench/step_model/published.py names the sources")
