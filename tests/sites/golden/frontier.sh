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
#SBATCH --partition=batch
#SBATCH --gpus-per-node=8
# 16 GPUs on 2 nodes of OLCF Frontier, one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export JOB_SCRIPT=/home/me/work/jobs/climate-DATE.sh
export STOP_BEFORE=180
source "$HPC_TRAIN/slurm/common.sh"
export NCCL_NET="${NCCL_NET:-OFI}"
export NCCL_CROSS_NIC="${NCCL_CROSS_NIC:-1}"
export NCCL_NET_GDR_LEVEL="${NCCL_NET_GDR_LEVEL:-PHB}"
export FI_MR_CACHE_MONITOR="${FI_MR_CACHE_MONITOR:-kdreg2}"
export FI_CXI_DISABLE_HOST_REGISTER="${FI_CXI_DISABLE_HOST_REGISTER:-1}"
export FI_CXI_DEFAULT_CQ_SIZE="${FI_CXI_DEFAULT_CQ_SIZE:-131072}"
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab

sbatch jobs/climate-DATE.sh
