#!/bin/bash
#SBATCH --job-name=climate
#SBATCH --account=abc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=72
#SBATCH --time=00:30:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#SBATCH --partition=normal
#SBATCH --gpus-per-task=1
# 8 GPUs on 2 nodes of CSCS Alps (Daint) (normal), one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export MPICH_GPU_SUPPORT_ENABLED="0"
export PMIX_MCA_psec="^munge"
export NCCL_NET="AWS Libfabric"
export NCCL_NET_GDR_LEVEL="PHB"
export NCCL_CROSS_NIC="1"
export NCCL_PROTO="^LL128"
export FI_CXI_DEFAULT_CQ_SIZE="131072"
export FI_CXI_DEFAULT_TX_SIZE="16384"
export FI_CXI_DISABLE_HOST_REGISTER="1"
export FI_CXI_RX_MATCH_MODE="software"
export FI_MR_CACHE_MONITOR="userfaultfd"
[ -f "$HPC_TRAIN/slurm/common.sh" ] || { echo "error: no $HPC_TRAIN/slurm/common.sh: submit again" >&2; exit 2; }
source "$HPC_TRAIN/slurm/common.sh"
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab ${NODE_LOCAL:+--stage "$NODE_LOCAL/climate-$SLURM_JOB_ID"}

sbatch jobs/climate-DATE.sh
