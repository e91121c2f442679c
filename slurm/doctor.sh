#!/bin/bash
#SBATCH --job-name=doctor
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=00:05:00
#SBATCH --no-requeue
#SBATCH --output=slurm-%x-%j.out
#
# Checks everything that the ranks of a job need. A good first job on a cluster:
#
#   sbatch --gpus-per-node=4 slurm/doctor.sh --data /scratch/cam5
#
# It prints one line each about the environment, MPI, the launcher, GPUs, cores, data, node-local storage and an
# all-reduce, from 8 ranks on 2 nodes that are started like those of every job of these templates. Options after the
# name go to `hpc-train doctor`, options before it to sbatch: see `bash slurm/mnist_8gpu.sh --help`. The status is 1 if
# something is wrong.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: run sbatch in the folder of slurm/, or set HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

prepare "$@"
run_ranks python -m hpc_train.cli doctor "$@"
