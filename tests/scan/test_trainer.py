"""The words of a trial's command line, and what a scan refuses before anything runs."""

import pytest

from hpc_train.errors import UserError
from hpc_train.scan.space import read
from hpc_train.scan.study import Settings
from hpc_train.scan.trainer import Trainer, again


def test_options_of_a_users_script_are_spelled_as_the_user_spells_them():
    words = Trainer("own.py", ()).trial_words({"batch_size": 32, "x-y": 0.5, "flag": "True"})
    assert words == ["--batch_size=32", "--x-y=0.5", "--flag=True"]


def test_options_of_the_suites_trainers_are_flags_lists_and_values():
    values = {"batch-size": "32", "histograms": "False", "deterministic": "True", "decay_at": "0.5 0.75", "lr": -0.5}
    assert Trainer("mnist", ()).trial_words(values) == [
        *("--batch-size=32", "--no-histograms", "--deterministic", "--decay-at", "0.5", "0.75", "--lr=-0.5")
    ]


def test_arguments_of_the_users_function_are_added_to_those_that_are_given(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def build(catalogue, depth, units, lr=None):\n    pass\n")
    trainer = Trainer("fit", (f"{file}:build", "--build-args", "depth=2", "--data", "x"))
    words = trainer.trial_words({"units": 8, "batch_size": 4, "build.lr": 0.1})
    assert words == ["--batch-size=4", "--build-args", "depth=2", "units=8", "lr=0.1"]
    for name, said in (("unit", "did you mean units?"), ("lr", "write build.lr=...")):
        with pytest.raises(UserError, match=said):
            trainer.trial_words({name: 1})


@pytest.mark.parametrize(
    ("words", "space", "said"),
    [
        (("--lr", "0.1"), "lr=0.1,0.2", "--lr is after `--`, and in --space too"),
        (("--batch-size=8",), "batch_size=16,32", "--batch_size is after `--`"),
        (("--resume",), "lr=0.1,0.2", "leave --resume out: trials resume by themselves"),
        ((), "decay_at='0.5,0.6", "no closing quotation; fix the quotes"),
        ((), "epochs=0.5,1", "mnist does not take the value 0.5"),
    ],
)
def test_what_cannot_be_is_one_line(words, space, said):
    with pytest.raises(UserError, match=said) as told:
        Trainer("mnist", ("--data", "synthetic", *words)).check(read([space]))
    assert "\n" not in str(told.value)


def test_the_command_that_trains_a_model_again_has_the_launcher_of_the_study():
    study = Settings("mnist", ["--data", "my data"], ["lr=1,2"], "tpe", "none", "loss", "min", 0, 2, "/", 4)
    one = Settings(**{**vars(study), "launcher": "mpirun -n {np}"})
    assert again(one, ["--lr=1"]) == (
        "mpirun -n 2 python -m hpc_train.mnist --data 'my data' --lr=1 --monitor loss:min"
    )
