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
#SBATCH --qos=regular
#SBATCH --gpus-per-node=4
#SBATCH --constraint=gpu
# 8 GPUs on 2 nodes of NERSC Perlmutter, one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export JOB_SCRIPT=/home/me/work/jobs/climate-DATE.sh
export STOP_BEFORE=180
source "$HPC_TRAIN/slurm/common.sh"
export FI_MR_CACHE_MONITOR="${FI_MR_CACHE_MONITOR:-userfaultfd}"
export HDF5_USE_FILE_LOCKING="${HDF5_USE_FILE_LOCKING:-FALSE}"
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab

sbatch jobs/climate-DATE.sh
