#!/bin/bash
#SBATCH --job-name=fit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#
# Trains your own Keras model, one rank a GPU: 8 ranks on 2 nodes with 4 GPUs each. From the hpc-train folder:
#
#   sbatch --nodes=4 --gpus-per-node=4 slurm/fit.sh mine.py:build --data /scratch/fields --loss mse --metrics mae
#
# Three minutes before the time limit, or when it is pre-empted, the job writes a checkpoint, requeues itself, and goes
# on in the same run folder. For the options of sbatch and of the trainer, and site.env, see
# `bash slurm/mnist_8gpu.sh --help`.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: run sbatch in the folder of slurm/, or set HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

run_job python -m hpc_train.fit "$@"
