#!/bin/bash
#SBATCH --job-name=climate
#SBATCH --account=abc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=3
#SBATCH --cpus-per-task=42
#SBATCH --time=00:30:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#SBATCH --partition=gpu-a100
# 6 GPUs on 2 nodes of TACC Lonestar6 (gpu-a100), one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
[ -f "$HPC_TRAIN/slurm/common.sh" ] || { echo "error: no $HPC_TRAIN/slurm/common.sh: submit again" >&2; exit 2; }
source "$HPC_TRAIN/slurm/common.sh"
[ -n "${PREFERRED_LAUNCHER+set}" ] || PREFERRED_LAUNCHER=ibrun
[ -n "${NODE_LOCAL+set}" ] || NODE_LOCAL=/tmp
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab ${NODE_LOCAL:+--stage "$NODE_LOCAL/climate-$SLURM_JOB_ID"}

sbatch jobs/climate-DATE.sh
