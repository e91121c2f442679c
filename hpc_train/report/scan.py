"""A scan over hyperparameters as its page shows it: trials and their curves, parameters, how busy workers were."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hpc_train.errors import UserError
from hpc_train.files.json_file import check, parse
from hpc_train.scan.study import SETTINGS, Study
from hpc_train.training.run_folder import Run

# Optuna's advice for PED-ANOVA: at least so many trials among the best, which it compares with all.
_AMONG_THE_BEST = 5
_FEWEST = 2 * _AMONG_THE_BEST

_REMEDY = "put back what the scan wrote, or remove the trial's folder"


@dataclass(frozen=True)
class Parameter:
    """What is searched of a parameter: choices, or numbers from low to high.

    Args:
        name: of the parameter.
        choices: all of them, in their order; empty for numbers.
        low, high: of numbers.
        log: whether numbers are searched by their logarithm.
        whole: whether numbers are whole.
    """

    name: str
    choices: tuple = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial: parameters, the command line's words for them, and what it reached.

    Args:
        number: of the trial.
        state: "open", "complete", "pruned" or "failed".
        params: values by the names of the parameters.
        words: of the command line.
        distributions: Optuna's, as JSON, by the names of the parameters.
        value: the score; None without one.
        epoch: of the score.
        reason: of a failure.
        curve: (epoch, score) of each epoch with one.
        epochs: that it trained.
        planned: epochs that it would train without pruning; None if that is not known.
    """

    number: int
    state: str
    params: dict[str, Any]
    words: tuple[str, ...] = ()
    distributions: Mapping[str, str] | None = None
    value: float | None = None
    epoch: int | None = None
    reason: str = ""
    curve: tuple[tuple[int, float], ...] = ()
    epochs: int = 0
    planned: int | None = None


@dataclass(frozen=True)
class Member:
    """A process of the scan: trials that its slots trained, from when to when (Unix s), and the slots' busy seconds."""

    name: str
    slots: int
    trials: int
    began: float
    ended: float
    busy: float
    preparing: float

    @property
    def there(self) -> float:
        """Seconds that the slots were there, all together."""
        return self.slots * (self.ended - self.began)


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan: its settings as in scan.json, trials by number, parameters, members; and what could not be read."""

    name: str
    settings: dict[str, Any]
    trials: list[Trial]
    parameters: list[Parameter]
    members: list[Member]
    left_out: list[str]

    @property
    def score(self) -> str:
        """Name of the score in metrics.jsonl."""
        return f"val_{self.settings['objective']}"

    @property
    def larger_is_better(self) -> bool:
        """Whether the search maximises."""
        return self.settings["direction"] == "max"

    @property
    def ranked(self) -> list[Trial]:
        """The complete trials, best first."""
        sign = -1 if self.larger_is_better else 1
        return sorted(self.of("complete"), key=lambda one: (sign * one.value, one.number))

    @property
    def best(self) -> Trial | None:
        """The best complete trial."""
        return next(iter(self.ranked), None)

    def of(self, state: str) -> list[Trial]:
        """The trials of a state; complete and pruned ones only if they have a score."""
        scored = state in ("complete", "pruned")
        return [one for one in self.trials if one.state == state and not (scored and one.value is None)]


def is_scan(path: Path) -> bool:
    """Whether a folder holds a scan."""
    return (path / SETTINGS).is_file()


def open_scan(name: str, path: Path) -> Scan:
    """The scan in a folder, under this name; trials that are damaged are left out, and named.

    Raises:
        UserError: scan.json is damaged, or there is no trial.
    """
    study = Study.open(path)
    settings = asdict(study.settings())
    left_out: list[str] = []
    trials = []
    for number in study.numbers():
        try:
            trial = study.trial(number)
            _check_distributions(trial)
            trials.append({**asdict(trial), "metrics": Run(trial.folder).metrics()})
        except UserError as error:
            left_out.append(str(error))
    if not trials:
        raise UserError(
            left_out[0] if left_out else f"{path} has no trial yet, so there is nothing to draw; let it run"
        )
    return made(name, settings, trials, study.notes(), left_out)


def made(
    name: str,
    settings: dict,
    trials: Sequence[Mapping[str, Any]],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    left_out: Sequence[str] = (),
) -> Scan:
    """A scan of plain values.

    Args:
        name: in the report.
        settings: as in scan.json.
        trials: as in trial.json, each with `metrics`, the lines of its metrics.jsonl.
        members: the lines of their trials.jsonl, by the members' names.
        left_out: lines about what could not be read.
    """
    found = sorted((_trial(one, settings) for one in trials), key=lambda one: one.number)
    worked = [_member(one, lines) for one, lines in members.items() if lines]
    return Scan(name, settings, found, _parameters(found), worked, list(left_out))


def saved_by_pruning(scan: Scan) -> tuple[int, int]:
    """Epochs that all trials trained, and epochs that pruned trials did not train."""
    full = max((one.epochs for one in scan.of("complete")), default=0)
    saved = sum(max(0, (one.planned or full) - one.epochs) for one in scan.trials if one.state == "pruned")
    return sum(one.epochs for one in scan.trials), saved


def importances(scan: Scan) -> tuple[dict[str, float], str]:
    """The parameters' shares in what makes a trial one of the best, by PED-ANOVA of Optuna (arXiv:2304.10255).

    Returns:
        Shares by the names, largest first, and what they are about; no shares, and why.
    """
    complete = scan.of("complete")
    if len(complete) < _FEWEST:
        return {}, f"Not known yet: that needs {_FEWEST} complete trials, there are {len(complete)}."
    if len({one.value for one in complete}) == 1:
        return {}, "Not known: all complete trials have the same score."
    try:
        import optuna
    except ImportError as error:
        return {}, f"Not known: that needs Optuna ({error}); run: pip install optuna"
    best = max(0.1, _AMONG_THE_BEST / len(complete))
    try:
        shares = _ped_anova(optuna, scan, complete, best)
    except ValueError as error:
        return {}, f"Not known: Optuna cannot compare these trials ({error})."
    text = f"What makes a trial one of the best {100 * best:.0f} %, by PED-ANOVA over {len(complete)} complete trials"
    few = f"; a first hint, since fewer than {10 * _AMONG_THE_BEST} trials are complete" if best > 0.1 else ""
    return shares, f"{text}{few}."


def _ped_anova(optuna, scan: Scan, complete: Sequence[Trial], best: float) -> dict[str, float]:
    import warnings

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if scan.larger_is_better else "minimize")
    for one in complete:
        kinds = {name: optuna.distributions.json_to_distribution(text) for name, text in one.distributions.items()}
        study.add_trial(optuna.create_trial(value=one.value, params=one.params, distributions=kinds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _check_distributions(trial) -> None:
    for name, text in trial.distributions.items():
        where = f"{trial.folder / 'trial.json'}: distribution of {name}"
        kind = parse(text, where, {"attributes": dict[str, Any]}, _REMEDY)["attributes"]
        if not kind.get("choices"):
            check([kind.get("low"), kind.get("high"), trial.params.get(name, 0)], list[float], where, _REMEDY)


def _trial(one: Mapping[str, Any], settings: dict) -> Trial:
    key = f"val_{settings['objective']}"
    lines = one["metrics"]
    curve = tuple((line["epoch"], line[key]) for line in lines if math.isfinite(line.get(key, math.nan)))
    value = one["value"]
    words = tuple(one.get("words") or ())
    return Trial(
        one["number"],
        one["state"],
        one["params"],
        words,
        one["distributions"],
        value if value is not None and math.isfinite(value) else None,
        one.get("epoch"),
        one.get("reason") or "",
        curve,
        max((line["epoch"] for line in lines), default=0),
        _planned([*settings["options"], *words]),
    )


def _planned(words: Sequence[str]) -> int | None:
    """The epochs that a command line asks for."""
    split = [part for word in words for part in (word.split("=", 1) if word.startswith("--epochs=") else (word,))]
    given = [after for word, after in pairwise(split) if word == "--epochs"]
    return int(given[-1]) if given and given[-1].isdecimal() else None


def _member(name: str, lines: Sequence[Mapping[str, Any]]) -> Member:
    began, ended = min(line["began"] for line in lines), max(line["ended"] for line in lines)
    busy = sum(line["ended"] - line["began"] for line in lines)
    # A trial that failed early was never prepared.
    prepared = [(line, line["ended"] if line["prepared"] is None else line["prepared"]) for line in lines]
    preparing = sum(min(max(0.0, until - line["began"]), line["ended"] - line["began"]) for line, until in prepared)
    slots = len({line["slot"] for line in lines})
    return Member(name, slots, len({line["trial"] for line in lines}), began, ended, busy, preparing)


def _parameters(trials: Sequence[Trial]) -> list[Parameter]:
    """Every parameter that a trial has, over all that the trials' distributions allow."""
    kinds: dict[str, list[dict]] = {}
    for one in trials:
        for name, text in (one.distributions or {}).items():
            known = kinds.setdefault(name, [])
            if (kind := json.loads(text)["attributes"]) not in known:
                known.append(kind)
    return [_parameter(name, known, trials) for name, known in kinds.items()]


def _parameter(name: str, kinds: Sequence[dict], trials: Sequence[Trial]) -> Parameter:
    choices = [choice for kind in kinds for choice in kind.get("choices", ())]
    if choices:
        # Numbers of other trials, whose distribution is not one of choices, are choices too.
        choices += [one.params[name] for one in trials if name in one.params]
        return Parameter(name, tuple({repr(one): one for one in choices}.values()))
    low, high = min(kind["low"] for kind in kinds), max(kind["high"] for kind in kinds)
    whole = all(isinstance(kind["low"], int) for kind in kinds)
    return Parameter(name, (), low, high, all(kind.get("log") for kind in kinds) and low > 0, whole)
