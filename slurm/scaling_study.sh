#!/bin/bash
#SBATCH --job-name=scaling_study
#SBATCH --dependency=singleton
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --time=00:30:00
#SBATCH --no-requeue
#SBATCH --output=slurm-%x-%j.out
#
# How does the speed grow with the ranks? One job a size:
#
#   for n in 1 2 4 8; do sbatch --nodes=$n slurm/scaling_study.sh --data shards/mnist; done
#
# Each job measures throughput at its size and prints the table of all sizes measured so far. Jobs of one name run one
# after another, so the output of the last one is the report; a size that failed is missing from it, no more.
#
# The job's name is the study's: `--job-name=NAME` keeps everything in studies/NAME, one JSON file a job and table.txt.
# A size that is submitted again adds its rounds. Sizes below a node: --nodes=1 --ntasks-per-node=1 --gpus-per-node=1.
# What follows the script goes to the benchmark (--model, --batch-size, --steps, --rounds, ...; all of them:
# `python -m hpc_train.bench.throughput --help`). The table again at any time: `hpc-train bench scaling studies/NAME`.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: sbatch in the hpc-train folder, or export HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

study=studies/$SLURM_JOB_NAME
mkdir -p "$study" || fail "cannot make $study in $PWD; submit from a folder on the shared file system"
# Not run_job: a benchmark has no run folder and nothing to resume.
run_ranks python -m hpc_train.bench.throughput "$@" \
  --output "$study/$(printf 'ranks-%05d-job-%s' "$ranks" "$SLURM_JOB_ID").json"
status=$?

set -o pipefail
"${container[@]}" hpc-train bench scaling "$study" | tee "$study/table.txt" && exit "$status"
