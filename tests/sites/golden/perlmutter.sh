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
# 8 GPUs on 2 nodes of NERSC Perlmutter (regular), one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export FI_MR_CACHE_MONITOR="userfaultfd"
export HDF5_USE_FILE_LOCKING="FALSE"
export MPICH_GPU_SUPPORT_ENABLED="0"
[ -f "$HPC_TRAIN/slurm/common.sh" ] || { echo "error: no $HPC_TRAIN/slurm/common.sh: submit again" >&2; exit 2; }
source "$HPC_TRAIN/slurm/common.sh"
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab ${NODE_LOCAL:+--stage "$NODE_LOCAL/climate-$SLURM_JOB_ID"}

sbatch jobs/climate-DATE.sh
