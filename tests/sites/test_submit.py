"""Job scripts of `hpc-train submit`: for each site as its page wants them; one line for what does not go together."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch import BIN

from hpc_train.errors import UserError
from hpc_train.sites.new_site import describe, partitions
from hpc_train.sites.request import choose
from hpc_train.sites.site import OWN, Partition, Site, find, known, read, seconds

GOLDEN = Path(__file__).parent / "golden"
SITE = 'title = "Here"\nscheduler = "slurm"\n[partitions.gpu]\ngpus_a_node = 4\ncores_a_node = 32\n'


def submit(*words, cwd, **variables):
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    for name in ("MODULES", "VENV", "CONTAINER", "LAUNCHER", "NODE_LOCAL", "HPC_TRAIN"):
        outside.pop(name, None)
    command = [BIN / "hpc-train", "submit", *map(str, words)]
    env = {**outside, "VENV": "/home/me/hpc-train/.venv", "HPC_TRAIN": "/home/me/hpc-train", **variables}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", known())
def test_the_script_of_each_site_is_as_its_page_wants_it(name, tmp_path):
    words = ("climate", "--nodes", "2", "--site", name, "--account", "abc", "--dry-run", "--time", "0:30:00")
    said = submit(*words, "--", "--data", "$SCRATCH/cam5", "--model", "deeplab", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert not list(tmp_path.iterdir())
    shown = re.sub(r"\d{8}-\d{6}", "DATE", said.stdout.replace(str(tmp_path), "/home/me/study"))
    shown = re.sub(r"written by hpc-train \S+", "written by hpc-train VERSION", shown)
    # To take a change that was looked at: rm -r tests/sites/golden, and run this test twice.
    if not (golden := GOLDEN / f"{name}.sh").exists():
        GOLDEN.mkdir(exist_ok=True)
        golden.write_text(shown)
        pytest.fail(f"{golden} is new: look at it")
    assert shown == golden.read_text()


@pytest.mark.parametrize("name", known())
def test_each_site_says_where_it_is_from_and_what_could_not_be_tried(name):
    site = find(name)
    assert site.sources
    assert all(source.startswith("https://") for source in site.sources)
    assert site.read
    assert site.untried
    assert all(one.cores_a_node >= one.gpus_a_node > 0 for one in site.partitions)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no trainer is given: give mnist, resnet, climate, fit, a module, or FILE.py"),
        (
            ("mnist", "--data", "x"),
            "--data is no option of submit; the trainer's come after `--`: submit mnist ... -- --data",
        ),
        (("mnits",), "no trainer 'mnits': did you mean mnist?"),
        (("mine.py",), "no file mine.py in"),
        (("json",), "there is no slurm/site.toml: give --site NAME (alps, bridges2,"),
        (("json", "--site", "bridges"), "--site bridges: did you mean bridges2?"),
        (("json", "--site", "none.toml"), "there is no none.toml"),
        (("json", "--site", "perlmutter"), "NERSC Perlmutter wants to know who pays: --account NAME"),
        (
            ("json", "--site", "bridges2", "--gpus", "12"),
            "GPU has whole nodes with 8 GPUs each: 12 on 2 do not fit, --gpus 16 does",
        ),
        (("json", "--site", "bridges2", "--gpus", "-3"), "-3 on 1 do not fit"),
        (("json", "--site", "bridges2", "--gpu-type", "a100"), "has h100-80, l40s-48, v100-16, v100-32 there"),
        (("json", "--site", "bridges2", "--partition", "RM"), "has no partition RM in its file: GPU, GPU-shared"),
        (("json", "--site", "lonestar6", "--time", "9-00:00:00"), "gpu-a100 takes jobs of 1 node for at most 48:00:00"),
        (("json", "--site", "bridges2", "--time", "1:30"), "--time 1:30: write minutes,"),
        (("json", "--site", "bridges2", "--time", "2"), "--stop-before 180: give 30 seconds or more, and less"),
        (("json", "--site", "bridges2", "--name", "my job"), "--name my job: begin with a letter"),
        (("json", "--site", "bridges2", "--scheduler-options", "--mem='3"), "--scheduler-options --mem='3: No closing"),
        (
            ("json", "--site", "bridges2", "--scheduler-options", "-C x --nodes=3"),
            "--scheduler-options --nodes=3: this is set",
        ),
        (
            ("json", "--site", "polaris", "--account", "a", "--partition", "prod"),
            "prod takes jobs of at least 10 nodes, not 1",
        ),
        (
            ("json", "--site", "frontier", "--account", "a", "--partition", "batch", "--time", "3:00:00"),
            "1 node for at most 2:00",
        ),
        (("json", "--site", "bridges2"), "there is no sbatch here"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(words, says, tmp_path):
    python = Path(sys.executable).parent
    said = submit(*words, cwd=tmp_path, PATH=str(python))
    assert said.returncode == 2
    assert says in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert says.startswith("there is no sbatch") or not list(tmp_path.iterdir())


def test_a_wrong_option_of_the_trainer_is_found_before_the_job_waits(tmp_path):
    said = submit("mnist", "--site", "bridges2", "--", "--data", "x", "--epoch", "3", cwd=tmp_path)
    assert said.returncode == 2
    assert "--epochs" in said.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title = ", "slurm/site.toml is not TOML"),
        ('title = "x"', "has no table [partitions.NAME]"),
        (SITE.replace("scheduler", "schedular"), "site has no schedular; did you mean scheduler?"),
        (SITE.replace('"slurm"', '"pbspro"'), "scheduler:"),
        (SITE.replace("= 4", '= "4"'), "gpus_a_node:"),
        (SITE.replace("cores_a_node = 32\n", ""), "missing 1 required positional argument: 'cores_a_node'"),
        ("partitions.gpu = 3\n" + SITE.partition("[")[0], "partitions.gpu is 3; write a table, [partitions.gpu]"),
        (
            f'gpus = "--gpus={{node}}"\n{SITE}',
            "'--gpus={node}' may have cores_a_node, gpus, gpus_a_node, nodes, type in",
        ),
    ],
)
def test_a_wrong_file_of_a_site_is_one_line(text, says):
    with pytest.raises(UserError) as refused:
        read(text, OWN)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_variables_in_a_site_are_quoted_for_the_shell(tmp_path):
    (tmp_path / "here.toml").write_text(
        'node_local = "${DISK}/`id`"\nmodules = "a \\"b\\""\n'
        + SITE
        + '[environment]\nA = "x $B"\nPATH = "/own:$PATH"\n'
    )
    said = submit("json", "--site", "here.toml", "--dry-run", "--", "a b", "$c", cwd=tmp_path)
    kept = ("[ -n ", "export A", "export PATH")
    lines = "\n".join(line for line in said.stdout.splitlines() if line.startswith(kept))
    shell = f'unset A MODULES NODE_LOCAL; B="*"; {lines}\nprintf "%s|" "$MODULES" "$NODE_LOCAL" "$A" "$PATH"'
    ran = subprocess.run(["bash", "-c", shell], env={"PATH": "/bin"}, capture_output=True, text=True)
    assert ran.stdout == 'a "b"|${DISK}/`id`|x *|/own:/bin|'
    assert "run_job python -m json 'a b' '$c'" in said.stdout


def test_ones_own_settings_and_templates_are_those_of_the_folder(tmp_path):
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    (slurm / "site.toml").write_text(SITE)
    (slurm / "site.env").write_text("VENV=/mine\n")
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "train.py").touch()
    said = submit("mypkg.train", "--dry-run", cwd=tmp_path).stdout
    assert f"export SITE_ENV={slurm}/site.env\n" in said
    assert "export HPC_TRAIN=/home/me/hpc-train\n" in said
    assert "run_job python -m mypkg.train\n" in said
    (slurm / "common.sh").touch()
    assert f"export HPC_TRAIN={tmp_path}\n" in submit("mypkg.train", "--dry-run", cwd=tmp_path).stdout


def test_the_environment_does_not_overrule_the_script_and_the_number_is_sbatchs_own(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text(
        f"#!/bin/sh\nenv >{tmp_path}/env\necho 'Welcome to the Lonestar6 machine'\necho 'Submitted batch job 2345'\n"
    )
    (programs / "sbatch").chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:/bin"
    own = {"SBATCH_ACCOUNT": "other", "SBATCH_PARTITION": "cpu", "SBATCH_QOS": "high", "SLURM_GPUS": "1", "PATH": path}
    said = submit("json", "--site", "bridges2", "--account", "mine", cwd=tmp_path, **own)
    assert re.fullmatch(
        r"submitted jobs/json-\S+ as job 2345: 8 GPUs on 1 node of PSC Bridges-2 \(GPU\)\n", said.stdout
    )
    passed = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert {name: value for name, value in passed.items() if name in own} == {"SBATCH_QOS": "high", "PATH": path}
    submit("json", "--site", "bridges2", cwd=tmp_path, **own)
    assert "SBATCH_ACCOUNT=other\n" in (tmp_path / "env").read_text()
    assert len(list((tmp_path / "jobs").iterdir())) == 2


@given(nodes=st.integers(0, 9), gpus=st.integers(0, 40), most=st.integers(1, 8), whole=st.booleans())
def test_gpus_are_spread_evenly_or_refused(nodes, gpus, most, whole):
    site = Site("here", "Here", "slurm", [Partition("gpu", most, most * 4, whole_nodes=whole)])
    try:
        found = choose(site, nodes, gpus, "", "", "60")
    except UserError:
        wanted = nodes or -(-gpus // most) or 1
        assert gpus % wanted or gpus > wanted * most or (whole and gpus != wanted * most)
        return
    assert found.nodes * found.gpus_a_node == (gpus or found.nodes * most)
    assert found.nodes == nodes or not nodes
    assert found.gpus_a_node == most or (gpus and not whole)
    assert found.seconds == 3600


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 5400), ("0:00:30", 30), ("1:02:03", 3723), ("2-01:00:00", 176400)]
)
def test_time_limits_are_read(text, expected):
    assert seconds(text, "") == expected


def test_a_new_site_has_the_most_frequent_kind_of_node_of_each_partition():
    told = (
        "gpu|gpu:a100:4(S:0-1)|128+|2-00:00:00|10\ngpu|gpu:a100:8|128|2-00:00:00|2\n"
        "mixed*|gpu:v100:2,gpu:t4:1|40|30:00|1\ncpu|(null)|64|infinite|90\n"
    )
    text = describe(
        partitions(told), "ClusterName             = big\nMpiDefault = pmix\n", "gcc/13\nopenmpi/5.0\n/opt:\n"
    )
    site = read(text, OWN)
    assert site.title == "big"
    assert site.partitions == [
        Partition("mixed", 3, 40, ["t4", "v100"], most_time="0:30:00"),
        Partition("gpu", 4, 128, ["a100"], most_time="2-00:00:00"),
    ]
    assert site.gpus == "--gpus-per-node={type}:{gpus_a_node}"
    assert "# Modules here: openmpi/5.0\n" in text
