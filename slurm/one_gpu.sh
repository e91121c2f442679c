#!/bin/bash
# Shows a rank one GPU of its node, before MPI starts in it: bash one_gpu.sh forward|reverse GPUS COMMAND ...
# The first rank of a node gets the first GPU, or in reverse the last one, where that one is nearer to its cores.

rank=${PALS_LOCAL_RANKID:-${PMI_LOCAL_RANK:-${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-${SLURM_LOCALID:-}}}}}
gpu=$(awk -v order="$1" -v count="$2" -v rank="$rank" -v seen="${CUDA_VISIBLE_DEVICES:-}" 'BEGIN {
  if (rank !~ /^[0-9]+$/) exit
  if (seen) count = split(seen, name, ","); else for (i = 0; i < count; i++) name[i + 1] = i
  if (count > 0) print name[order == "reverse" ? count - rank % count : rank % count + 1]
}')
if [ -z "$gpu" ]; then
  echo "error: GPU_AFFINITY=$1: the launcher does not number the ranks of a node, or the node has no GPU" >&2
  exit 1
fi
export CUDA_VISIBLE_DEVICES=$gpu
shift 2
exec "$@"
