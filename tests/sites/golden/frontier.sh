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
# 16 GPUs on 2 nodes of OLCF Frontier (batch), one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export NCCL_NET="OFI"
export NCCL_CROSS_NIC="1"
export NCCL_NET_GDR_LEVEL="PHB"
export FI_MR_CACHE_MONITOR="kdreg2"
export FI_CXI_DISABLE_HOST_REGISTER="1"
export FI_CXI_DEFAULT_CQ_SIZE="131072"
[ -f "$HPC_TRAIN/slurm/common.sh" ] || { echo "error: no $HPC_TRAIN/slurm/common.sh: submit again" >&2; exit 2; }
source "$HPC_TRAIN/slurm/common.sh"
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab ${NODE_LOCAL:+--stage "$NODE_LOCAL/climate-$SLURM_JOB_ID"}

sbatch jobs/climate-DATE.sh
