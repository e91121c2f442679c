"""What the tests of the pages rest on: command lines are found in Markdown, and a wrong option is noticed."""

import command_lines
import pytest
import shown

PAGE = """
```bash
hpc-train verify \\
    --data x   # a comment
. .venv/bin/activate && hpc-train stats --data x
```

```console
$ hpc-train doctor
nothing is wrong
```

```text
hpc-train inspect --data x
```

    output of hpc-train
    horovodrun -np 2 python -m hpc_train.mnist --data x
"""


def test_commands_are_found_and_output_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(shown, "REPOSITORY", tmp_path)
    (tmp_path / "page.md").write_text(PAGE)
    assert [command.text for command in shown.commands(tmp_path / "page.md")] == [
        "hpc-train verify --data x",
        ". .venv/bin/activate && hpc-train stats --data x",
        "hpc-train doctor",
        "horovodrun -np 2 python -m hpc_train.mnist --data x",
    ]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("horovodrun -np 4 -H a:2,b:2 python -m hpc_train.mnist --data x", "python -m hpc_train.mnist --data x"),
        ("HOROVOD_TIMELINE=t.json mpirun -np 2 .venv/bin/hpc-train doctor --ranks 2", "hpc-train doctor --ranks 2"),
        ("apptainer run --nv x.sif doctor", "hpc-train doctor"),
        ("CONTAINER=x.sif sbatch --nodes=2 slurm/resnet.sh --data x", "python -m hpc_train.resnet --data x"),
        ("sbatch slurm/doctor.sh --data x", "hpc-train doctor --data x"),
        ("sbatch slurm/train.sh hpc_train.climate --data x", "python -m hpc_train.climate --data x"),
        (
            "sbatch slurm/scan.sh st --trials 4 -- mnist --data x",
            "hpc-train scan --join st --trials 4 -- mnist --data x",
        ),
        ("sbatch slurm/scaling_study.sh mnist --data x", "hpc-train bench throughput mnist --data x"),
        ("make mnist NP=4 ARGS='--lr 0.1'", "python -m hpc_train.mnist --data x --lr 0.1"),
    ],
)
def test_a_command_line_comes_down_to_that_of_this_project(typed, meant):
    line = command_lines.of(shown.split(typed))
    assert line == meant.split()
    assert command_lines.problem(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "python -m hpc_train.mnist --data x --epoch 3",
        "python -m hpc_train.mnist --epochs 3",
        "python -m hpc_train.mnist --data x --epochs many",
        "hpc-train prepare letters",
        "hpc-train prepar digits",
        "hpc-train bench scaling studies/x --np 1,2 -- mnist --data x --rond 2",
    ],
)
def test_a_wrong_command_line_is_noticed(line):
    assert command_lines.problem(line.split())


def test_what_a_page_leaves_out_may_be_missing_and_what_it_has_must_be_right():
    assert command_lines.problem(["hpc-train", "shard", "--compression", "zstd", "..."]) is None
    assert command_lines.problem(["hpc-train", "inspect", "--data", "..."]) is None
    assert command_lines.problem(["hpc-train", "shard", "--compresion", "zstd", "..."])
