#!/bin/bash
#SBATCH --job-name=scan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#
# Scans hyperparameters, a trial on each GPU: 8 trials at once on 2 nodes with 4 GPUs each. From the hpc-train folder:
#
#   sbatch --gpus-per-node=4 slurm/scan.sh studies/rates --trials 64 --space 'lr=log:1e-4..1e-1' 'model=cnn,deep' \
#     --objective accuracy -- mnist --data shards/mnist --epochs 6
#
# The words are those of `hpc-train scan`. On each node one process runs the trials of that node; all work on one study.
# So do all jobs that name the same study, which start and stop at any time: `sbatch --array=1-8 --nodes=1 ...`.
#
# Three minutes before the time limit, or when it is pre-empted, the trials of a job write checkpoints. The job requeues
# itself, and goes on until the study is over. For the options of sbatch and site.env, see
# `bash slurm/mnist_8gpu.sh --help`.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: run sbatch in the folder of slurm/, or set HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

newest_checkpoint() { # of all trials
  local newest
  newest=$(find "$run/trials" \( -name 'step-*.h5' -o -name trial.json \) -printf '%T@-%f\n' 2>/dev/null | sort -n | tail -n 1)
  echo "${newest:-*}"
}

run=${1:-}
case $run in '' | -*) fail "no study given: sbatch slurm/scan.sh STUDY --trials 64 ... -- mnist --data DIR" ;; esac
mkdir -p "$run" || fail "cannot make the study's folder $run: give one on the shared file system"
prepare "$@"
# Jobs that share a study count their restarts by themselves.
restarts_file=restarts-$job
# A process that is killed does not end those on the other nodes. Each hands out the cores of its node.
launcher=(srun --mpi=none --kill-on-bad-exit=0 --wait=0 --cpu-bind=none "--nodes=$node_count" "--ntasks=$node_count"
  --ntasks-per-node=1)
say "study $run on $node_count nodes ($node_list); on a node: cores $cores_a_node, GPUs $gpus_a_node;" \
  "environment: $environment"
run_to_the_end python -m hpc_train.cli scan --join "$@"
