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
# How does the speed grow with the ranks? One job a size and repeat, submitted, waited for and laid out by one command:
#
#   hpc-train bench scaling studies/NAME --np 1,2,4,8 --submit --ranks-per-node 4 -- mnist --data shards/mnist
#
# By hand, one job a size, each of which prints the table of all sizes so far:
#
#   for n in 1 2 4 8; do sbatch --nodes=$n slurm/scaling_study.sh mnist --data shards/mnist; done
#
# Jobs of one name run one after another, so the output of the last one is the report; a size that failed is missing
# from it, no more. The job's name is the study's: `--job-name=NAME` keeps everything in studies/NAME, one JSON file a
# job and table.txt. (With `--output FILE` among the benchmark's options the figures go there, and there is no table.) A
# size that is submitted again adds its rounds. Sizes below a node: --nodes=1 --ntasks-per-node=1 --gpus-per-node=1.
# What follows the script goes to the benchmark (`hpc-train bench throughput mnist --help`). The table again at any
# time: `hpc-train bench scaling studies/NAME`.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: sbatch in the hpc-train folder, or export HPC_TRAIN" >&2; exit 2; }
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
mkdir -p "$study" || fail "cannot make $study in $PWD; submit from a folder on the shared file system"
run_ranks "${benchmark[@]}" --output "$study/$(printf 'ranks-%05d-job-%s' "$ranks" "$SLURM_JOB_ID").json"
status=$?

set -o pipefail
"${container[@]}" hpc-train bench scaling "$study" | tee "$study/table.txt" && exit "$status"
