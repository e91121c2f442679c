"""Predictions for sizes that a study did not run, by the model of a step's time."""

from dataclasses import dataclass, field

from hpc_train.bench.study.measurements import OURS
from hpc_train.errors import UserError
from hpc_train.report.study import MODES, Series, Study

_LARGEST = 27_360  # GPUs of the largest published run: Kurth et al. 2018


@dataclass(frozen=True, eq=False)
class Forecast:
    """The prediction for one curve of a study.

    Args:
        study: its name.
        series: the curve.
        predicted: as `hpc_train.bench.step_model.Fitted.predict` returns it.
        notes: the description of the model.
        why: the reason, if nothing is predicted.
        one_machine: all measured sizes ran on one node.
    """

    study: str
    series: Series
    predicted: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    why: str = ""
    one_machine: bool = False


def forecasts(study: Study) -> list[Forecast]:
    """Fit the model to the weak and the strong curve of a study, and predict larger sizes."""
    ours = [one for one in study.series if one.framework == OURS]
    return [_forecast(study, mode, curves) for mode in MODES if (curves := [one for one in ours if one.mode == mode])]


def _forecast(study: Study, mode: str, curves: list[Series]) -> Forecast:
    from hpc_train.bench.step_model import fit_study
    from hpc_train.bench.step_model.describe import describe

    try:
        fitted = fit_study(study.path, mode=mode)
        measured = [size.ranks for size in fitted.curve.sizes]
        series = next((one for one in curves if [row["ranks"] for row in one.valid] == measured), curves[0])
        # In strong scaling each rank has at least one sample.
        most = _LARGEST if mode == "weak" else min(_LARGEST, int(series.conditions["global batch"]))
        one_machine = all(size.nodes == 1 for size in fitted.curve.sizes)
        predicted = fitted.predict(_sizes(measured[0], most))
        return Forecast(study.name, series, predicted, describe(fitted), one_machine=one_machine)
    except UserError as error:
        return Forecast(study.name, curves[0], why=f"No prediction of {mode} scaling: {error}.")


def _sizes(smallest: int, most: int) -> list[int]:
    sizes = [smallest]
    while sizes[-1] * 2 < most:
        sizes.append(sizes[-1] * 2)
    return [*sizes, most] if most > sizes[-1] else sizes
