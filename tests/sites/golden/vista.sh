#!/bin/bash
#SBATCH --job-name=climate
#SBATCH --account=abc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=72
#SBATCH --time=00:30:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#SBATCH --partition=gh
# 2 GPUs on 2 nodes of TACC Vista, one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export JOB_SCRIPT=/home/me/work/jobs/climate-DATE.sh
export STOP_BEFORE=180
source "$HPC_TRAIN/slurm/common.sh"
: "${PREFERRED_LAUNCHER=ibrun}"
: "${NODE_LOCAL=/tmp}"
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab --stage '/tmp/climate-$SLURM_JOB_ID'

sbatch jobs/climate-DATE.sh
