#!/bin/bash
# Tests an image: everything loads (in an image for GPUs also CUDA's libraries and NCCL), and 2 ranks of its MPI compute
# the right sum. install.sh puts this file into the image; Apptainer runs it after the build, and for `apptainer test`.
set -euo pipefail

# Variables of the building machine: folders that no container shows, the job of the build, packages.
for name in $(compgen -e); do
  case $name in
    TMPDIR | NODE_LOCAL | LOCAL_SCRATCH | SLURM_* | PMI_* | PMIX_* | CUDA_VISIBLE_DEVICES | PYTHONPATH | PYTHONHOME)
      unset "$name"
      ;;
  esac
done
export TF_CPP_MIN_LOG_LEVEL=3 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

hpc-train doctor
# On the CPUs, as there may be one GPU, or none.
mpirun -np 2 python -c '
import horovod.tensorflow as hvd, tensorflow as tf
hvd.init()
assert hvd.nccl_built() or not tf.test.is_built_with_cuda(), "Horovod has no NCCL"
with tf.device("/cpu:0"):
    total = hvd.allreduce(tf.fill([1_000_000], hvd.rank() + 1.0), op=hvd.Sum)
assert hvd.size() == 2 and tf.reduce_all(total == 3).numpy(), "a wrong sum"
if hvd.rank() == 0:
    print("the sum over 2 ranks is right")
'
