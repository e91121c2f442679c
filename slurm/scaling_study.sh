#!/bin/bash
#SBATCH --job-name=scaling_study
#SBATCH --dependency=singleton
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --exclusive
#SBATCH --time=00:30:00
#SBATCH --no-requeue
#SBATCH --output=slurm-%x-%j.out
#
# Measures how the speed grows with the ranks, in one job for each size. One command submits all jobs, waits for them
# and prints the table:
#
#   hpc-train bench scaling studies/NAME --np 1,2,4,8 --submit --ranks-per-node 4 -- mnist --data shards/mnist
#
# By hand, with one job for each size; each job prints the table of all sizes so far:
#
#   for n in 1 2 4 8; do sbatch --nodes=$n --gpus-per-node=4 slurm/scaling_study.sh mnist --data shards/mnist; done
#
# Jobs with one name run one after another, so the output of the last one is the report. If a size fails, only that size
# is missing. The job's name is the name of the study: with `--job-name=NAME` everything is in studies/NAME, one JSON
# file for each job and table.txt. (With `--output FILE` among the benchmark's options the figures go to FILE, and there
# is no table.) If you submit a size again, its rounds are added. For less than a node give --nodes=1
# --gpus-per-node=1. Options after the script go to the benchmark (`hpc-train bench throughput mnist
# --help`). `hpc-train bench scaling studies/NAME` prints the table at any time.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: run sbatch in the folder of slurm/, or set HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

# Not run_job: a benchmark has no run folder and nothing to resume.
study=studies/$SLURM_JOB_NAME
prepare "$@" "$study"
benchmark=(python -m hpc_train.cli bench throughput "$@")
case " $* " in
  *" --output "* | *" --output="*)
    run_ranks "${benchmark[@]}"
    exit
    ;;
esac
mkdir -p "$study" || fail "cannot make $study in $PWD: run sbatch in a folder on the shared file system"
run_ranks "${benchmark[@]}" --output "$study/$(printf 'ranks-%05d-job-%s' "$ranks" "$SLURM_JOB_ID").json"
status=$?

set -o pipefail
"${container[@]}" hpc-train bench scaling "$study" | tee "$study/table.txt" && exit "$status"
