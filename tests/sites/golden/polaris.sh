#!/bin/bash -l
#PBS -N climate
#PBS -A abc
#PBS -l walltime=00:30:00
#PBS -j oe
#PBS -r y
#PBS -q debug
#PBS -l select=2:system=polaris
#PBS -l place=scatter
#PBS -l filesystems=home:eagle
# 8 GPUs on 2 nodes of ALCF Polaris (debug), one rank a GPU; written by hpc-train VERSION
export VENV=/home/me/hpc-train/.venv
export HPC_TRAIN=/home/me/hpc-train
export JOB_SCRIPT=/home/me/study/jobs/climate-DATE.sh
export STOP_BEFORE=180
export GPUS_PER_NODE=4
export GPU_AFFINITY="reverse"
export CPUS_PER_RANK="8"
export NCCL_NET="AWS Libfabric"
export NCCL_NET_GDR_LEVEL="PHB"
export NCCL_CROSS_NIC="1"
export NCCL_COLLNET_ENABLE="1"
export FI_CXI_DISABLE_HOST_REGISTER="1"
export FI_MR_CACHE_MONITOR="userfaultfd"
export FI_CXI_DEFAULT_CQ_SIZE="131072"
export LD_LIBRARY_PATH="/soft/libraries/aws-ofi-nccl/v1.9.1-aws/lib:/soft/libraries/hwloc/lib:$LD_LIBRARY_PATH"
[ -f "$HPC_TRAIN/slurm/pbs.sh" ] || { echo "error: no $HPC_TRAIN/slurm/pbs.sh: submit again" >&2; exit 2; }
source "$HPC_TRAIN/slurm/pbs.sh"
[ -n "${PREFERRED_LAUNCHER+set}" ] || PREFERRED_LAUNCHER=mpiexec
[ -n "${NODE_LOCAL+set}" ] || NODE_LOCAL=/local/scratch
run_job python -m hpc_train.climate --data '$SCRATCH/cam5' --model deeplab ${NODE_LOCAL:+--stage "$NODE_LOCAL/climate-$PBS_JOBID"}

qsub jobs/climate-DATE.sh
