#!/bin/bash
#SBATCH --job-name=climate
#SBATCH --account=abc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=7
#SBATCH --time=00:30:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#SBATCH --partition=standard-g
#SBATCH --gpus-per-node=8
# 16 GPUs on 2 nodes of LUMI-G (standard-g), one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export NCCL_SOCKET_IFNAME="hsn"
export NCCL_NET_GDR_LEVEL="3"
[ -f "$HPC_TRAIN/slurm/common.sh" ] || { echo "error: no $HPC_TRAIN/slurm/common.sh: submit again" >&2; exit 2; }
source "$HPC_TRAIN/slurm/common.sh"
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab ${NODE_LOCAL:+--stage "$NODE_LOCAL/climate-$SLURM_JOB_ID"}

sbatch jobs/climate-DATE.sh
