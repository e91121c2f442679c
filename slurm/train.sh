#!/bin/bash
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#
# Runs any trainer, one rank a GPU: 8 ranks on 2 nodes with 4 GPUs each. The first word is a module, or a file (.py):
#
#   sbatch --gpus-per-node=4 slurm/train.sh hpc_train.mnist --data shards/mnist
#   sbatch --job-name=mine --nodes=4 --gpus-per-node=4 slurm/train.sh my_script.py --data fields/
#
# The trainer gets the other words, `--resume`, and `--run runs/NAME-JOBID` if you give no --run. On SIGUSR1 a trainer
# should write a checkpoint and end with status 75, which means: run me again. `hpc_train.training` does this. The time
# limit simply ends a script that does not.
# For the options of sbatch, time limits and site.env, see `bash slurm/mnist_8gpu.sh --help`.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: run sbatch in the folder of slurm/, or set HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

case ${1:-} in
  '') fail "no trainer given: sbatch --gpus-per-node=4 slurm/train.sh hpc_train.mnist --data DIR" ;;
  *.py) run_job python "$@" ;;
  *) run_job python -m "$@" ;;
esac
