"""What Optuna is asked and told, when the scan is stopped anywhere and goes on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as of

from hpc_train.errors import UserError
from hpc_train.scan.space import read
from hpc_train.scan.study import COMPLETE, FAILED, PRUNED, Settings, Trial

pytest.importorskip("optuna")

SPACE = ["x=-1.0..1.0", "y=log:1e-3..1e1", "n=int:1..9"]


def of_study(search, seed=0, prune="none", space=SPACE, trials=0):
    return Settings("own.py", [], list(space), search, prune, "score", "max", seed, 1, "/", trials)


def score(params):
    return -((params["x"] - 0.3) ** 2) - (params["n"] - 4) ** 2 / 9


class Searching:
    """A search whose trials are kept as a study's files keep them."""

    def __init__(self, settings_of_study, folder):
        from hpc_train.scan.search import Search

        self.settings, self.folder, self.trials = settings_of_study, folder, []
        self.make = lambda: Search(self.settings, read(self.settings.space), self.trials)
        self.search = self.make()

    def ask(self):
        params, _ = self.search.ask()
        number = len(self.trials)
        kept = self.search.written(number)
        self.trials.append(Trial(self.folder, number, params, [], kept, self.search.told))

    def tell(self, number, state=COMPLETE):
        trial = self.trials[number]
        trial.state, trial.value = state, score(trial.params) if state == COMPLETE else None
        trial.told = self.search.tell(number, state, trial.value)

    def go_on(self):
        """As after a kill: all that Optuna held in memory is gone."""
        self.search = self.make()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Trials of one epoch."""
    monkeypatch.setattr(Trial, "curve", lambda self, _: [] if self.value is None else [(1, self.value)])


# How many trials run at once, and after which steps the scan is killed.
@pytest.mark.parametrize("search", ["random", "tpe", "cmaes"])
@settings(max_examples=15, deadline=None)
@given(at_once=of.integers(1, 4), kills=of.sets(of.integers(0, 19)), failed=of.sets(of.integers(0, 19)))
def test_a_scan_that_is_killed_asks_for_the_same_values(tmp_path_factory, search, at_once, kills, failed):
    folder = tmp_path_factory.mktemp("scan")
    kept = []
    for killed in (set(), kills):
        one = Searching(of_study(search), folder)
        for number in range(20):
            one.ask()
            if number >= at_once - 1:
                done = number - at_once + 1
                one.tell(done, FAILED if done in failed else COMPLETE)
            if number in killed:
                one.go_on()
        kept.append([trial.params for trial in one.trials])
    assert kept[0] == kept[1]


def test_random_values_do_not_depend_on_what_trials_bring(tmp_path):
    left, right = (Searching(of_study("random"), tmp_path) for _ in range(2))
    for number in range(10):
        left.ask()
        left.tell(number)
        right.ask()
    assert [one.params for one in left.trials] == [one.params for one in right.trials]
    assert Searching(of_study("random", seed=1), tmp_path).search.ask()[0] != left.trials[0].params


def test_a_grid_is_asked_point_by_point(tmp_path):
    space = ["a=1,2,3", "b=0.0..1.0:0.5"]
    one = Searching(of_study("grid", space=space), tmp_path)
    for _ in range(4):
        one.ask()
    one.go_on()
    for _ in range(5):
        one.ask()
    assert sorted((trial.params["a"], trial.params["b"]) for trial in one.trials) == [
        (a, b) for a in "123" for b in (0.0, 0.5, 1.0)
    ]


def test_a_function_may_suggest_values_that_depend_on_each_other(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def space(trial):\n"
        "    kind = trial.suggest_categorical('kind', ['a', 'b'])\n"
        "    return {'kind': kind, **({'x': trial.suggest_float('x', 0, 1)} if kind == 'a' else {})}\n"
        "def wrong(trial):\n    return trial.suggest('x')\n"
        "def nothing(trial):\n    pass\n"
    )
    one = Searching(of_study("random", space=[f"{file}:space"]), tmp_path)
    for _ in range(8):
        one.ask()
    assert {tuple(trial.params) for trial in one.trials} == {("kind", "x"), ("kind",)}
    one.go_on()
    one.ask()
    for name, said in (("wrong", "has no attribute 'suggest'"), ("nothing", "return a dict of options and values")):
        with pytest.raises(UserError, match=said):
            Searching(of_study("random", space=[f"{file}:{name}"]), tmp_path).ask()


@pytest.mark.parametrize("prune", ["asha", "hyperband", "median"])
def test_a_trial_that_is_worse_than_the_others_is_given_up_and_a_better_one_is_not(tmp_path, prune):
    one = Searching(of_study("random", prune=prune), tmp_path)
    for number in range(12):
        one.ask()
        one.search.report(number, [(epoch, float(number)) for epoch in range(1, 10)])
        one.search.tell(number, COMPLETE, float(number))
    one.ask()
    one.ask()
    assert not one.search.report(13, [(epoch, 100.0) for epoch in range(1, 10)])
    assert one.search.report(12, [(epoch, -100.0) for epoch in range(1, 10)])
    assert one.search.tell(12, PRUNED, None) == 12


@pytest.mark.parametrize("prune", ["asha", "hyperband", "median"])
def test_a_scan_that_goes_on_gives_up_the_same_trials_at_the_same_epochs(tmp_path, monkeypatch, prune):
    curves = {number: [(epoch, (number * 7 % 11) * epoch) for epoch in range(1, 10)] for number in range(24)}
    monkeypatch.setattr(Trial, "curve", lambda self, _: curves[self.number])

    def given_up(again_after):
        one, ended = Searching(of_study("random", prune=prune), tmp_path), []
        for number in range(24):
            one.ask()
            last = next((epoch for epoch, _ in curves[number] if one.search.report(number, curves[number][:epoch])), 0)
            ended.append(last)
            trial = one.trials[number]
            trial.state, trial.value = (PRUNED, None) if last else (COMPLETE, curves[number][-1][1])
            if last:
                curves[number] = curves[number][:last]
            trial.told = one.search.tell(number, trial.state, trial.value)
            if number == again_after:
                one.go_on()
        return ended

    whole = dict(curves)
    found = []
    for again_after in (None, 5, 15):
        curves.update(whole)
        found.append(given_up(again_after))
    assert any(found[0])
    assert found[0] == found[1] == found[2]


def test_tpe_finds_more_than_chance_on_a_known_function(tmp_path):
    found = {}
    for search in ("random", "tpe"):
        best = []
        for seed in range(8):
            one = Searching(of_study(search, seed=seed), tmp_path)
            for number in range(40):
                one.ask()
                one.tell(number)
            best.append(max(trial.value for trial in one.trials))
        found[search] = sum(best) / len(best)
    assert found["tpe"] > found["random"]
