"""No text of a file, a variable or a command is calculated with, or run, by a shell file of ours."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from launch import REPOSITORY
from shell_scan import unchecked
from strangers import needs_root, stranger

SHELL = sorted(path for folder in ("slurm", "containers") for path in (REPOSITORY / folder).glob("*.sh"))
# Lines that evaluate text which nobody else can choose, and why.
ALLOWED = {
    'source "$common"': "the templates' own file",
    'source "$HPC_TRAIN/slurm/container.sh"': "the templates' own file",
    'source "$HPC_TRAIN/slurm/job.sh"': "the templates' own file",
    'source "$HPC_TRAIN/slurm/launcher.sh"': "the templates' own file",
    'source "$HPC_TRAIN/slurm/nodes.sh"': "the templates' own file",
    'source "$HPC_TRAIN/slurm/ranks.sh"': "the templates' own file",
    'source "$site"': "the site's settings are code, as their first lines say",
    '. "$project/containers/lend.sh"': "a file beside the script",
    '[ ! -f "$lent/environment" ] || . "$lent/environment"': "written by lend.sh, with %q",
    'echo "deb $mirror $(. /etc/os-release && echo "$VERSION_CODENAME")-security main" >$list': "the system's own file",
    'whole "${!name-}" || fail "$(given_as "$name") is \'${!name-}\', which is not a whole number"': "names in scripts",
    '[ -z "${!name+set}" ] || given+=("$name=${!name}")': "names in the script",
    '[ ${#given[@]} = 0 ] || export "${given[@]}"': "NAME=VALUE, with names in the script",
    "case ${!i} in": "i counts the arguments",
    "--run) run=${!next:-} ;;": "next counts the arguments",
    "--run=*) run=${!i#--run=} ;;": "i counts the arguments",
    "found+=${BASH_REMATCH[1]}${!BASH_REMATCH[3]-${BASH_REMATCH[2]}}": "the pattern lets only names through",
    '[ -z "${!name:-}" ] || printf \'\' "$name" "${!name}" >>"$1/environment"': "names in the script",
    'unset "$name"': "bash itself lists the names",
}


def test_shell_files_calculate_with_checked_numbers_only():
    found = {path.name: unchecked(path.read_text(), frozenset(ALLOWED)) for path in SHELL}
    assert {name: lines for name, lines in found.items() if lines} == {}
    # A reason whose line is gone would let another line through later.
    used = {line.partition(": ")[2] for path in SHELL for line in unchecked(path.read_text())}
    assert set(ALLOWED) - used == set()


@pytest.mark.parametrize(
    "line",
    [
        'read -r n <"$file"; echo $((n + 1))',
        'n=$(cat "$file"); echo "$((1 + n))"',
        'n=3; n=$FROM_OUTSIDE; (( n > 2 )) && echo "more"',
        'for n in $(cat "$file"); do list[n]=1; done',
        'if whole "$n"; then echo ok; fi; :\nfi\necho $((n))',
        "echo ${list[n - 1]}",
        "echo ${text:n:2}",
        "echo $((${1:-0} + 1))",
        "echo $(($(stat -c %s file) / 2))",
        "[[ $n -gt 3 ]] && echo more",
        "echo $[n + 1]",
        "let n+=1",
        "local -i n=$1",
        'eval "$text"',
        'printf -v "$name" %s 1',
        '[ -v "$name" ] && echo set',
        'export "$name=1"',
        'echo "${!name}"',
        'source "$file"',
        'bash -c "echo $text"',
        'trap "echo $text" EXIT',
    ],
)
def test_the_scan_finds_what_would_evaluate_text(line):
    assert unchecked(f"f() {{\n  {line}\n}}\n")


def test_the_scan_passes_what_is_checked():
    script = """again=75
number COUNT
f() { # text with ((n)) and an apostrophe's end
  local i next n=0 free
  number free
  for ((i = 1; i <= $#; i++)); do
    next=$((i + 1 + free + COUNT - again))
  done
  n=$((n + next)) left=${#list[@]}
  if whole "$end"; then
    n=$((end * 2))
  fi
  awk '{print $((n))}' <<<"${list[@]:n:left} ${list[-1]} ${text:-n}"
}
"""
    assert unchecked(script) == []
    assert unchecked(script.replace("number free", ""))
    assert unchecked(script.replace("number COUNT", ""))


# Stands for a launcher: the options `-n RANKS -ppn RANKS` come first.
LAUNCHER = '#!/bin/bash\n[ "$1" != --version ] || { echo HYDRA; exit; }\nshift 4\nexec "$@"\n'
WATCHED = ("SLURM_NTASKS", "SLURM_JOB_NUM_NODES", "SLURM_CPUS_ON_NODE", "SLURM_RESTART_COUNT", "RESTARTS")


@pytest.fixture
def job(tmp_path):
    """A function that runs a template as Slurm would, with other variables and files; it returns what was printed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    texts = {"launcher": LAUNCHER, "python": "#!/bin/sh\nexit 0\n", "srun": "#!/bin/sh\n", "scontrol": "#!/bin/sh\n"}
    texts["squeue"] = '#!/bin/sh\necho "$ANSWER"\n'
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(template, *arguments, **variables):
        env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HPC_TRAIN": str(REPOSITORY),
            "LAUNCHER": "launcher",
            "VENV": "",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NAME": "job",
            "SLURM_JOB_NODELIST": "node1",
            **dict.fromkeys(WATCHED, "1"),
            **variables,
        }
        command = ["bash", REPOSITORY / "slurm" / template, *map(str, arguments)]
        ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        return ended.stdout + ended.stderr

    return run


def attacks(mark):
    """Texts that make a file where they are evaluated."""
    return (f"a[$(touch {mark})0]", f"a[`touch {mark}`]", f"x=$(touch {mark})", f"0;touch {mark}", f"$(touch {mark})")


def test_a_file_of_restarts_runs_nothing(job, tmp_path):
    run, mark = tmp_path / "run", tmp_path / "mark"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "step-9").touch()
    for text in attacks(mark):
        (run / "restarts").write_text(f"{text.replace(' ', chr(9))} step-9\n")
        assert "finished" in job("train.sh", "hpc_train.mnist", "--run", run)
        (run / "restarts").write_text(f"a[$({{touch,{mark}}})0] step-9\n")
        printed = job("train.sh", "hpc_train.mnist", "--run", run)
        assert f"{run}/restarts is damaged: counting restarts from 0" in printed
        assert (run / "restarts").read_text() == "0 step-9\n"
        assert not mark.exists()
    # What a run wrote itself still counts.
    job("train.sh", "hpc_train.mnist", "--run", run)
    assert (run / "restarts").read_text() == "1 step-9\n"
    assert "2 restarts in a row" in job("train.sh", "hpc_train.mnist", "--run", run, RESTARTS="2")


def test_a_trainers_note_for_the_batch_script_runs_nothing(job, tmp_path):
    run, mark = tmp_path / "run", tmp_path / "mark"
    (run / "checkpoints").mkdir(parents=True)
    for text in attacks(mark):
        for line in (text.replace(" ", "\t"), f"9 {text}"):
            (run / "pace").write_text(f"{line}\n{text}\n")
            assert "finished" in job("train.sh", "hpc_train.mnist", "--run", run, RESTARTS="99")
            assert not mark.exists()


@pytest.mark.parametrize("checkpoint", ["step-9", "step-26"])
def test_restarts_with_next_to_no_steps_end_the_job_in_the_trainers_words(job, tmp_path, checkpoint):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / checkpoint).touch()
    (run / "restarts").write_text("0 step-9\n")
    (run / "pace").write_text("11 118\ngive the job 6 min\x1b\n")
    printed = job("train.sh", "hpc_train.mnist", "--run", run, RESTARTS="2")
    assert "note: of its 118 s the last start had 11 s for steps: 2 such starts in a row end the job" in printed
    assert (run / "restarts").read_text() == f"1 {checkpoint}\n"
    (run / "pace").write_text("11 118\ngive the job 6 min\x1b\n")
    printed = job("train.sh", "hpc_train.mnist", "--run", run, RESTARTS="2")
    assert "finished" not in printed
    assert (
        "2 restarts in a row got next to nowhere: not requeued; the time limit is too short: give the job 6 min ("
        in printed
    )


def test_restarts_with_enough_steps_do_not_count(job, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "step-80").touch()
    (run / "restarts").write_text("1 step-9\n")
    (run / "pace").write_text("12 118\ngive the job 6 min\n")
    assert "finished" in job("train.sh", "hpc_train.mnist", "--run", run, RESTARTS="2")
    assert (run / "restarts").read_text() == "0 step-80\n"


@needs_root
def test_a_stranger_cannot_use_a_run_folder_that_he_may_write_in(job):
    with tempfile.TemporaryDirectory(dir="/tmp") as open_folder:
        run, mark = Path(open_folder) / "run", Path(open_folder) / "mark"
        for folder in (run.parent, run):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
        for text in attacks(mark):
            told = stranger("import sys; open(sys.argv[1], 'w').write(sys.argv[2])", run / "restarts", f"{text} none")
            assert told.returncode == 0, told.stderr
            assert "finished" in job("train.sh", "hpc_train.mnist", "--run", run)
            assert (run / "restarts").stat().st_uid == os.geteuid()
            assert not mark.exists()
            run.joinpath("restarts").unlink()


def test_a_link_in_the_place_of_restarts_leads_nowhere(job, tmp_path):
    run, precious = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    precious.write_text("mine")
    (run / "restarts").symlink_to(precious)
    assert "finished" in job("train.sh", "hpc_train.mnist", "--run", run)
    assert precious.read_text() == "mine"
    (run / "restarts").unlink()
    os.mkfifo(run / "restarts")
    assert "finished" in job("train.sh", "hpc_train.mnist", "--run", run)


def test_variables_names_and_lines_run_nothing(job, tmp_path):
    mark = tmp_path / "mark"
    for text in attacks(mark):
        for name in WATCHED:
            printed = job("train.sh", "hpc_train.mnist", "--run", tmp_path / "run", **{name: text})
            assert "which is not a whole number" in printed, (name, printed)
        job("train.sh", "hpc_train.mnist", "--run", tmp_path / "run", SLURM_ARRAY_TASK_ID=text, SLURM_ARRAY_JOB_ID="7")
        job("scan.sh", tmp_path / "study", "--space", text, "--", "mnist")
        for name in ("SLURM_JOB_NAME", "SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS", "SLURM_GPUS_ON_NODE", "NODE_LOCAL"):
            job("climate.sh", "--data", text, "--run", tmp_path / "run", ANSWER=text, **{name: text.replace("/", "")})
        names = tmp_path / "run" / "checkpoints"
        names.mkdir(exist_ok=True, parents=True)
        (names / text.replace("/", "")).touch()
        job("train.sh", "hpc_train.mnist", "--run", tmp_path / "run")
        assert not [path for path in tmp_path.rglob("*mark") if path.parent != names]


def functions_of(name):
    """The functions of one of the templates' files, without what it does when it is read."""
    return (REPOSITORY / "slurm" / name).read_text().partition("\n# shellcheck source=")[0]


def test_whole_numbers_of_any_size_that_occurs_are_numbers():
    functions = functions_of("job.sh") + functions_of("common.sh")
    numbers = ("0", "7", "27360", "1795978800")
    for text in (*numbers, "08", "-1", "1 2", "1\n2", "", "x", "9" * 16):
        ended = subprocess.run(["bash", "-c", f'{functions}\nwhole "$1"', "bash", text], timeout=20)
        assert (ended.returncode == 0) == (text in numbers), text


def test_the_answer_of_squeue_runs_nothing(tmp_path):
    mark = tmp_path / "mark"
    functions = functions_of("job.sh") + functions_of("common.sh")
    for text in attacks(mark):
        script = f'{functions}\nask() {{ echo "$TEXT"; }}\ndate() {{ echo "$TEXT"; }}\njob=7 heard=\n'
        script += 'sleep 5 &\nranks_pid=$!\npass_signal USR1\necho "heard $heard"\n'
        ended = subprocess.run(
            ["bash", "-c", script], env={**os.environ, "TEXT": text}, capture_output=True, text=True, timeout=20
        )
        assert ended.stdout == "heard USR1\n", ended.stderr
        assert not mark.exists()
