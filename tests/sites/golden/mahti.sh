#!/bin/bash
#SBATCH --job-name=climate
#SBATCH --account=abc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=00:30:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#SBATCH --partition=gpumedium
#SBATCH --gres=gpu:a100:4
# 8 GPUs on 2 nodes of CSC Mahti, one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export JOB_SCRIPT=/home/me/work/jobs/climate-DATE.sh
export STOP_BEFORE=180
source "$HPC_TRAIN/slurm/common.sh"
: "${PREFERRED_LAUNCHER=srun}"
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab

sbatch jobs/climate-DATE.sh
