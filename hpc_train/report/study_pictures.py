"""The charts of a study's page as PNG, for slides and other documents."""

from collections.abc import Sequence
from pathlib import Path

from hpc_train.plotting import save
from hpc_train.report import charts, styles
from hpc_train.report.forecast import Forecast
from hpc_train.report.study import MODES, Series


def write_pictures(series: Sequence[Series], ahead: Sequence[Forecast], output: Path) -> list[Path]:
    """Write weak-scaling.png, strong-scaling.png, breakdown.png and prediction.png, as far as there are figures.

    Returns:
        The files written.

    Raises:
        UserError: matplotlib is missing, or a file cannot be written.
    """
    made = {}
    for mode in MODES:
        curves = [one for one in series if one.mode == mode]
        if curves:
            made[f"{mode}-scaling.png"] = _speeds(curves)
    known = [one for one in series if one.known_parts]
    if known:
        made["breakdown.png"] = _breakdown(known)
    predicted = [one for one in ahead if one.predicted]
    if predicted:
        made["prediction.png"] = _predictions(predicted)
    for name, figure in made.items():
        save(figure, output / name)
    return [output / name for name in made]


def _speeds(series: Sequence[Series]):
    kinds = charts.speeds(series)
    figure, every = charts.grid(len(kinds))
    for axes, draw in zip(every, kinds, strict=True):
        draw(axes, series)
    styles.curves_below(figure, [one.label for one in series])
    return figure


def _breakdown(series: Sequence[Series]):
    figure, every = charts.grid(len(series))
    for axes, one in zip(every, series, strict=True):
        charts.breakdown(axes, one)
    styles.colours_below(figure, charts.PART_COLOURS)
    return figure


def _predictions(ahead: Sequence[Forecast]):
    figure, every = charts.grid(len(ahead))
    for axes, one in zip(every, ahead, strict=True):
        charts.prediction(axes, one.series, one.predicted)
    return figure
