"""What to try next and what to give up: Optuna, whose study lives in memory and is made anew from the trials' files.

The seed of each question to Optuna comes from the scan's seed and the trial's number. So a scan that was killed goes on
as if it had not been, for random and grid search whatever the order in which trials end.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpc_train.errors import UserError
from hpc_train.requirements import pip_install
from hpc_train.scan.space import Space
from hpc_train.scan.study import COMPLETE, FAILED, OPEN, PRUNED, Settings, Trial

if TYPE_CHECKING:
    import optuna


class Search:
    """Asks Optuna for the values of trials, and tells it what came of them.

    Args:
        settings: of the study.
        space: of the study.
        trials: those that there are.

    Raises:
        UserError: Optuna is missing, or the space does not go with the search.
    """

    def __init__(self, settings: Settings, space: Space, trials: Sequence[Trial]):
        optuna = library()
        numbers = space.reference or any(one.kind != "choice" for one in space.dimensions.values())
        if settings.search == "cmaes" and not numbers:
            raise UserError("--search cmaes is for numbers, and all of --space are choices; take --search tpe")
        self.settings, self.space = settings, space
        self.points = space.points(settings.seed) if settings.search == "grid" else []
        self._suggest = space.suggest() if space.reference else None
        self.distributions = space.distributions()
        direction = {"max": "maximize", "min": "minimize"}[settings.direction]
        # Hyperband chooses a trial's bracket by this name and the trial's number.
        self.study = optuna.create_study(study_name="scan", direction=direction, pruner=self._pruner())
        self._reported: dict[int, int] = {}
        self.told = 0
        self._again(trials)

    def ask(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(parameters for Optuna, values by name) of the next trial; its number is the next one.

        Raises:
            UserError: the user's function fails.
        """
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = self._sampler(number)
        if self.points:
            self.study.enqueue_trial(self.points[number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self.study.ask(self.distributions)
            values = self._suggest(trial) if self._suggest else trial.params
        return dict(trial.params), dict(values)

    def distributions_of(self, number: int) -> dict:
        """The distributions of a trial's parameters."""
        return self.study.get_trials(deepcopy=False)[number].distributions

    def written(self, number: int) -> dict[str, str]:
        """The same as Optuna writes them."""
        to_json = library().distributions.distribution_to_json
        return {name: to_json(one) for name, one in self.distributions_of(number).items()}

    def report(self, number: int, curve: Sequence[tuple[int, float]]) -> bool:
        """Tell Optuna the values of new epochs; returns whether the trial is to be given up."""
        trial, given_up = self._trial(number), False
        for epoch, value in curve[self._reported.get(number, 0) :]:
            trial.report(value, epoch)
            given_up = trial.should_prune() or given_up
        self._reported[number] = len(curve)
        return given_up

    def tell(self, number: int, state: str, value: float | None) -> int:
        """Tell Optuna what came of a trial; returns how many it was told before.

        Args:
            number: of the trial.
            state: complete, pruned or failed.
            value: of a complete trial.
        """
        self.study.tell(number, value if state == COMPLETE else None, state=_states()[state])
        self.told += 1
        return self.told - 1

    @property
    def _reports(self) -> bool:
        """Whether Optuna hears of each epoch."""
        return self.settings.prune != "none"

    def _again(self, trials: Sequence[Trial]) -> None:
        """Make the study that Optuna had before this process started."""
        told = sorted((one for one in trials if one.told is not None), key=lambda one: one.told or 0)
        if self.settings.search == "cmaes":
            # Its distribution comes from what was asked and told in which order: ask and tell all of it again.
            self._replay(trials, told)
        else:
            for one in trials:
                self._add(one)
            # In the order in which Optuna heard of them: pruners remember how far each has come.
            for one in told if self._reports else ():
                self._tell_again(one)
        self.told = 1 + max((one.told or 0 for one in told), default=-1)

    def _tell_again(self, one: Trial) -> None:
        if one.state != FAILED and self._reports:
            self.report(one.number, one.curve(self.settings.objective))
        self.tell(one.number, one.state, one.value)

    def _add(self, one: Trial) -> None:
        optuna = library()
        from_json = optuna.distributions.json_to_distribution
        distributions = {name: from_json(text) for name, text in one.distributions.items()}
        state = OPEN if self._reports else one.state
        self.study.add_trial(
            optuna.trial.create_trial(
                state=_states()[state],
                value=one.value if state in (COMPLETE, PRUNED) else None,
                params=one.params,
                distributions=distributions,
            )
        )

    def _replay(self, trials: Sequence[Trial], told: Sequence[Trial]) -> None:
        left = list(told)
        for one in [*trials, None]:
            while left and (one is None or (left[0].told or 0) < one.told_before):
                self._tell_again(left.pop(0))
            if one and self.ask()[0] != one.params:
                raise UserError(
                    f"{one.folder}: this version of Optuna would have chosen other values, so --search cmaes cannot go "
                    f"on; install the version of the scan's start, or start a new study"
                )

    def _trial(self, number: int) -> "optuna.trial.Trial":
        return library().trial.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    def _sampler(self, number: int):
        samplers = library().samplers
        seed = (self.settings.seed * 1_000_003 + number) % 2**32
        # A warning about each trial that runs while another is chosen is no news here: many run.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.settings.search == "tpe":
                return samplers.TPESampler(seed=seed, constant_liar=True)
            if self.settings.search == "cmaes":
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            return samplers.RandomSampler(seed=seed)

    def _pruner(self):
        pruners, first = library().pruners, self.settings.prune_after
        if self.settings.prune == "asha":
            return pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3)
        if self.settings.prune == "hyperband":
            return pruners.HyperbandPruner(min_resource=first, max_resource="auto", reduction_factor=3)
        if self.settings.prune == "median":
            return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=first)
        return pruners.NopPruner()


def library():
    """Optuna, which prints nothing.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError(f"a scan needs Optuna: {pip_install('scan')}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _states():
    state = library().trial.TrialState
    return {OPEN: state.RUNNING, COMPLETE: state.COMPLETE, PRUNED: state.PRUNED, FAILED: state.FAIL}
