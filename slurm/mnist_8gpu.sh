#!/bin/bash
#SBATCH --job-name=mnist
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=00:30:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#
# Trains a network of the MNIST family, one rank a GPU: 8 ranks on 2 nodes with 4 GPUs each. From the hpc-train folder:
#
#   sbatch --gpus-per-node=4 slurm/mnist_8gpu.sh --data shards/mnist --model dropout --epochs 12
#
# Options after the name go to the trainer (`python -m hpc_train.mnist --help`), options before it to sbatch. Ask for
# GPUs in the form that your site wants: every GPU that the job gets has one rank.
#
#   sbatch --gpus=v100-32:16 slurm/mnist_8gpu.sh ...                  16 GPUs of one type in the job
#   sbatch --nodes=1 --gres=gpu:a100:4 slurm/mnist_8gpu.sh ...        4 GPUs on 1 node
#   sbatch --gpus-per-task=1 --cpus-per-task=8 slurm/mnist_8gpu.sh    1 GPU and 8 cores for each of 2 x 4 tasks
#   sbatch --exclusive slurm/mnist_8gpu.sh ...                        all that 2 nodes have
#   sbatch --gpus-per-node=0 --ntasks-per-node=2 slurm/mnist_8gpu.sh  no GPUs: one rank a task
#
# `hpc-train submit mnist` writes this line for your site.
#
# Two minutes before the time limit, or when it is pre-empted, the job writes a checkpoint, requeues itself, and goes
# on in the same run folder: runs/NAME-JOBID, or the one given with --run. Put what your site needs (modules, container,
# network) into slurm/site.env: copy slurm/site.env.example.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: run sbatch in the folder of slurm/, or set HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

run_job python -m hpc_train.mnist "$@"
