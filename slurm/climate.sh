#!/bin/bash
#SBATCH --job-name=climate
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
#
# Trains climate segmentation, one rank a GPU: 8 ranks on 2 nodes with 4 GPUs each. From the hpc-train folder:
#
#   sbatch --nodes=8 --gpus-per-node=4 --cpus-per-task=12 slurm/climate.sh --data /scratch/cam5
#
# First the job copies the data to each node's own storage: to --stage DIR, or to a folder in NODE_LOCAL
# (slurm/site.env) or TMPDIR. Slurm should empty that folder after the job. If none of them is set, or with
# `NODE_LOCAL= sbatch ...`, the data are not copied.
# Five minutes before the time limit, or when it is pre-empted, the job writes a checkpoint, requeues itself, and goes
# on in the same run folder. For the options of sbatch and of the trainer, and site.env, see
# `bash slurm/mnist_8gpu.sh --help`.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: run sbatch in the folder of slurm/, or set HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

case " $* " in
  *" --stage "* | *" --stage="*) ;;
  *) [ -z "${NODE_LOCAL=${TMPDIR:+\$TMPDIR}}" ] || set -- "$@" --stage "$NODE_LOCAL/climate-$SLURM_JOB_ID" ;;
esac
run_job python -m hpc_train.climate "$@"
