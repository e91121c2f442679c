"""The recipes are sound, and one of them is built; what build.sh checks before it starts, and what it lends."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import images
import pytest
from launch import BIN

from hpc_train.horovod_build import gpu

RECIPES = [*sorted(images.CONTAINERS.glob("*.def")), images.SMALL]
BUILD = images.CONTAINERS / "build.sh"
# Like Horovod's kernels it needs the headers of half precision and the static runtime.
HALF = """
#include <cuda_fp16.h>
__global__ void add(__half* sums) { sums[threadIdx.x] = __hadd(sums[threadIdx.x], sums[0]); }
int main() { add<<<1, 1>>>(nullptr); return cudaDeviceSynchronize(); }
"""
apptainer = pytest.mark.skipif(bool(images.missing()), reason=images.missing())


def build(*arguments: str | Path, **variables: str) -> tuple[int, str]:
    ended = images.run(BUILD, *arguments, timeout=600, **variables)
    return ended.returncode, ended.stdout


def built_or_skipped(output: str) -> None:
    # debootstrap's message. Messages of apt and pip about a mirror may mean that something was not lent.
    if "Failed getting release file" in output:
        pytest.skip("Debian's mirror cannot be reached")
    pytest.fail(output[-3000:])


@apptainer
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_is_sound(recipe):
    assert not images.faults(recipe)


@apptainer
@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("%pots\n    true\n", "pots"),
        ("%post\n    echo {{ MPY }}\n", "MPY"),
        ("MirorURL: here\n%post\n    true\n", "miror"),
    ],
)
def test_a_fault_in_a_recipe_would_be_found(tmp_path, wrong, complaint):
    recipe = tmp_path / "wrong.def"
    recipe.write_text(f"Bootstrap: debootstrap\nOSVersion: bookworm\n{wrong}")
    assert complaint in images.faults(recipe).lower() or complaint in images.faults(recipe)


def test_the_scripts_are_clean():
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here (Debian: shellcheck)")
    checked = images.run("shellcheck", "--external-sources", *images.CONTAINERS.glob("*.sh"))
    assert checked.returncode == 0, checked.stdout


def test_the_dockerfile_is_clean():
    linter = BIN / "hadolint"
    if not linter.exists():
        pytest.skip("no hadolint for this processor")
    checked = images.run(linter, images.CONTAINERS / "Dockerfile")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--mpy", "mpich"], "unknown option --mpy"),
        (["--mpi"], "--mpi needs a value"),
        (["--mirror", "http://me:secret@mirror/debian", images.SMALL], "holds a password"),
        (["--force", images.SMALL, images.CONTAINERS], "containers is a folder"),
        (["--mpi", "mvapich"], "--mpi mvapich: give mpich or openmpi"),
        (["nowhere.def"], "no recipe nowhere.def"),
        ([images.SMALL, "a.sif", "b.sif"], "b.sif is one argument too many"),
        ([images.SMALL, images.SMALL], "small.def exists: --force replaces it"),
    ],
)
def test_a_mistake_is_one_line(arguments, complaint):
    status, output = build(*arguments)
    assert status == 2
    assert complaint in output
    assert len(output.splitlines()) == 1


def test_folders_that_cannot_hold_it_are_named_before_anything_starts(tmp_path):
    status, output = build("--check", images.SMALL, tmp_path / "none" / "x.sif", TMPDIR="/nowhere")
    assert status == 1
    assert f"cannot write to {tmp_path}/none, where the image goes" in output
    assert "cannot write to /nowhere, where it is built (set TMPDIR to another folder)" in output
    assert len(output.splitlines()) == 1


def test_everything_that_is_missing_is_named_before_anything_starts(tmp_path):
    few = tmp_path / "bin"
    few.mkdir()
    for program in ("bash", "dirname", "basename", "df", "awk", "cut", "grep", "sed", "python3"):
        (few / program).symlink_to(shutil.which(program))
    # A user whose home folder is on another machine.
    for program, answer in (("id", "1234"), ("getent", "someone:x:1234:1234::/home/elsewhere:/bin/sh")):
        (few / program).write_text(f"#!{shutil.which('bash')}\necho {answer}\n")
        (few / program).chmod(0o755)
    ended = subprocess.run(
        [shutil.which("bash"), str(BUILD), "--check"],
        env={"PATH": str(few), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    for complaint in ("no apptainer", "no home folder '/home/elsewhere'", "no root"):
        assert complaint in ended.stderr


@pytest.mark.skipif(
    not (shutil.which("apt-get") and Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists()),
    reason="nvcc.sh needs Debian, and this is another system",
)
def test_a_compiler_for_gpus_from_v100_to_h100_is_assembled(tmp_path):
    done = images.run(images.CONTAINERS / "nvcc.sh", tmp_path / "cuda", PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if done.returncode:
        built_or_skipped(done.stdout)
    cuda = gpu.find_cuda(tmp_path / "cuda")
    assert gpu.default_archs(cuda) == "70,80,90"
    source = tmp_path / "half.cu"
    source.write_text(HALF)
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in (70, 80, 90)]
    linked = images.run(cuda.home / "bin" / "nvcc", *targets, "-o", tmp_path / "half", source)
    assert linked.returncode == 0, linked.stdout


def lent(folder: Path, **variables: str) -> tuple[dict[str, str], list[str]]:
    """The variables that `lend` writes for install.sh, and the folders that it mounts."""
    folder.mkdir()
    script = '. "$0"/lend.sh; lend "$1"; printf "%s\\0" "${binds[@]}"'
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    given = {"PIP_CONFIG_FILE": os.devnull, **keep, **variables}
    command = ["bash", "-euo", "pipefail", "-c", script, images.CONTAINERS, folder]
    lending = subprocess.run(command, env=given, check=True, capture_output=True, text=True)
    read = subprocess.run(
        ["bash", "-c", f". '{folder}/environment'; python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"],
        env={"PATH": keep["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(read.stdout), lending.stdout.split("\0")[1:-1:2]


def test_proxies_and_package_indexes_are_lent_with_folders_where_they_will_be(tmp_path):
    wheels, mirror = tmp_path / "wheels", tmp_path / "mirror"
    wheels.mkdir()
    (mirror / "simple").mkdir(parents=True)
    env, binds = lent(
        tmp_path / "lent",
        https_proxy="http://me:pass$word@proxy:3128",
        PIP_INDEX_URL="https://mirror.example/simple",
        PIP_EXTRA_INDEX_URL=f"file://{mirror}/simple https://other.example/simple",
        PIP_FIND_LINKS=str(wheels),
    )
    assert env["https_proxy"] == "http://me:pass$word@proxy:3128"
    assert env["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert env["PIP_FIND_LINKS"] == "/mnt/folder2"
    assert env["PIP_EXTRA_INDEX_URL"] == "file:///mnt/folder1/simple https://other.example/simple"
    # An index links to files beside it.
    assert f"{mirror}:/mnt/folder1:ro" in binds
    assert f"{wheels}:/mnt/folder2:ro" in binds


def test_pips_variables_are_lent_without_pip(tmp_path):
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$1" != -m ] || exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = f"{python.parent}:{os.environ['PATH']}"
    env, _ = lent(tmp_path / "lent", PATH=path, PIP_INDEX_URL="https://mirror.example/simple")
    assert env["PIP_INDEX_URL"] == "https://mirror.example/simple"


def test_the_sites_certificates_are_lent_to_pip_and_apt(tmp_path):
    (tmp_path / "site.crt").write_text("a certificate")
    env, binds = lent(tmp_path / "lent", SSL_CERT_FILE=str(tmp_path / "site.crt"))
    assert env["PIP_CERT"] == "/mnt/certificates.crt"
    assert (tmp_path / "lent" / "certificates.crt").read_text() == "a certificate"
    assert env["APT_CONFIG"] == "/mnt/apt.conf"
    assert (tmp_path / "lent" / "apt.conf").read_text() == 'Acquire::https::CAInfo "/mnt/certificates.crt";\n'
    assert binds == [f"{tmp_path}/lent:/mnt:ro"]


needed = images.missing("debootstrap", "mksquashfs")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A small image that is built here and that only its user may read; everything lent contains `lent.example`."""
    if needed:
        pytest.skip(needed)
    folder = tmp_path_factory.mktemp("small")
    image, certificates = folder / "small.sif", folder / "site.crt"
    known = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    before = os.umask(0o077)
    certificates.write_text("lent.example: a secret of the site\n" + known.read_text())
    lent = {"no_proxy": "lent.example", "PIP_TRUSTED_HOST": "lent.example", "PIP_CERT": str(certificates)}
    try:
        # A mirror for which apt needs the certificates.
        status, output = build("--mirror", "https://deb.debian.org/debian", images.SMALL, image, **lent)
    finally:
        os.umask(before)
    if status:
        built_or_skipped(output)
    assert f"{image}: " in output.splitlines()[-1]
    return image


def test_an_image_keeps_nothing_that_was_lent(small):
    assert small.stat().st_mode & 0o777 == 0o700
    described = images.run("git", "describe", "--always", "--dirty")
    revision = described.stdout.strip() if described.returncode == 0 else "unknown"
    labels = images.labels(small)
    assert (labels["mpi"], labels["org.opencontainers.image.revision"]) == ("mpich", revision)

    def inside(*command: str) -> subprocess.CompletedProcess:
        return images.run("apptainer", "--silent", "exec", "--cleanenv", "--contain", small, *command)

    assert inside("python", "-c", "import six").returncode == 0
    assert not inside("ls", "-A", "/mnt").stdout
    assert "lent.example" not in inside("env").stdout
    folders = ("/etc", "/home", "/opt", "/root", "/srv", "/usr", "/var", "/.singularity.d")
    assert not inside("grep", "-rlsF", "lent.example", *folders).stdout
    again, complaint = build(images.SMALL, small)
    assert (again, "--force replaces it" in complaint) == (2, True)
    status, output = build("--force", "--check", images.SMALL, small)
    assert status == 0, output


# An apptainer that takes no time; and a program that stops in the middle, as if a quota ended it.
APPTAINER = """#!/bin/sh
case "$*" in *--help*) echo --build-arg ;; *) shift $(($# - 2)); echo an image >"$1" ;; esac
"""
STOPS = """#!/bin/sh
while [ $# -gt 1 ]; do shift; done
echo an >"$1"
exit 1
"""


@pytest.mark.skipif(bool(needed), reason=needed)
@pytest.mark.parametrize("program", ["cp", "mv"])
def test_an_image_that_cannot_be_put_into_its_place_is_kept(tmp_path, program):
    for folder in ("bin", "temporary", "images"):
        (tmp_path / folder).mkdir()
    for name, text in (("apptainer", APPTAINER), (program, STOPS)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{images.environment()['PATH']}"
    status, output = build(images.SMALL, tmp_path / "images" / "x.sif", PATH=path, TMPDIR=str(tmp_path / "temporary"))
    (kept,) = (tmp_path / "temporary").glob("*/image.sif")
    assert status == 1
    assert output.splitlines()[-1].endswith(f"cannot be put into {tmp_path}/images: move it yourself from {kept}")
    assert kept.read_text() == "an image\n"
    assert not (kept.parent / "lent").exists()
    assert not list((tmp_path / "images").glob("*.part"))


IN_A_JOB = """
fail() { echo "error: $*" >&2; exit 1; }
. "$1"/slurm/container.sh
shift
use_container "$@"
"${container[@]}" sh -c 'cat shards/mnist/data w.h5 "$MORE/data"; touch runs/made'
"""


def in_a_job(image: Path, project: Path, *options: str | Path, **variables: str) -> subprocess.CompletedProcess:
    """Use a container like the templates, with ranks that read their data."""
    settings = {"CONTAINER": str(image), "HPC_TRAIN": str(project), "NODE_LOCAL": "", **variables}
    command = ("bash", "-uc", IN_A_JOB, "bash", images.REPOSITORY, *options)
    return images.run(*command, cwd=project, **settings)


def test_ranks_in_a_container_find_data_behind_links_and_in_folders_with_strange_names(small, tmp_path):
    scratch, site, weights = tmp_path / "scratch", tmp_path / "site", tmp_path / "a,b:c d"
    project = tmp_path / "project"
    for path in (scratch / "me" / "mnist", scratch / "me" / "runs", project, weights):
        path.mkdir(parents=True)
    (scratch / "me" / "mnist" / "data").write_text("behind three links\n")
    (scratch / "me" / "w.h5").write_text("a file behind two\n")
    (weights / "data").write_text("of a strange name\n")
    # A site's link to its file system, and a user's links in folders of links.
    site.symlink_to(scratch)
    (project / "shards").mkdir()
    (project / "shards" / "mnist").symlink_to(site / "me" / "data")
    (scratch / "me" / "data").symlink_to("mnist")
    (project / "w.h5").symlink_to("../site/me/w.h5")
    (project / "runs").symlink_to(site / "me" / "runs")
    options = ("--data", "shards/mnist/*", "--run=runs/new", "--weights", "w.h5", "--more", "$MORE/x.h5")
    # By default containers show all of /tmp.
    variables = {"MORE": str(weights), "CONTAINER_OPTIONS": "--no-mount tmp"}
    ended = in_a_job(small, project, *options, **variables)
    assert ended.stdout == "behind three links\na file behind two\nof a strange name\n"
    assert (scratch / "me" / "runs" / "made").exists()


def test_a_container_that_does_not_start_ends_the_job_with_the_reason(small, tmp_path):
    ended = in_a_job(small, tmp_path, CONTAINER_OPTIONS="--bind /nowhere")
    assert ended.returncode == 1
    assert ended.stdout.startswith(f"error: a container of {small} does not start: ")
    assert "/nowhere" in ended.stdout
    torn = tmp_path / "torn.sif"
    torn.write_bytes(small.read_bytes()[:100_000])
    ended = in_a_job(torn, tmp_path)
    assert (ended.returncode, ended.stdout.count("\n")) == (1, 1)
    assert "does not start" in ended.stdout


@pytest.mark.skipif(bool(needed), reason=needed)
@pytest.mark.skipif(os.getuid() != 0, reason="the test above has built without root")
def test_an_image_is_built_without_root(tmp_path):
    subuid = Path("/etc/subuid")
    granted = [line.split(":")[0] for line in subuid.read_text().splitlines()] if subuid.is_file() else []
    named = [user for user in pwd.getpwall() if user.pw_uid and user.pw_name in granted]
    users = [user for user in named if os.path.isdir(user.pw_dir)]
    if not users:
        pytest.skip("no user has a home, and lines in /etc/subuid and /etc/subgid, here (`useradd -m` adds them)")
    # Neither the project nor the tests' folders need be open to others.
    with tempfile.TemporaryDirectory() as folder:
        for name in ("containers", "tests"):
            shutil.copytree(images.REPOSITORY / name, Path(folder, name))
        subprocess.run(["chown", "-R", str(users[0].pw_uid), folder], check=True)
        ids = [f"--reuid={users[0].pw_uid}", f"--regid={users[0].pw_gid}", "--init-groups"]
        command = [Path(folder, "containers", "build.sh"), Path(folder, "tests", "small.def"), "small.sif"]
        env = {"HOME": folder, "TMPDIR": folder}
        built = images.run("setpriv", *ids, *command, cwd=folder, timeout=300, **env)
        if built.returncode:
            built_or_skipped(built.stdout)
        assert images.run("apptainer", "exec", Path(folder, "small.sif"), "python", "-c", "import six").returncode == 0
