# shellcheck shell=bash disable=SC2034,SC2154
# How many ranks run on which node, and what may start them, where the scheduler has no launcher of its own; for pbs.sh
# and lsf.sh, which set nodes and, for each of them, slots and gpus.

gpus_shown() { # the number of GPUs of this node: by the setting, by what the job may see, or by what the driver lists
  if [ -n "${GPUS_PER_NODE:-}" ]; then
    echo "$GPUS_PER_NODE"
  elif [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    awk -F, '{ print NF }' <<<"$CUDA_VISIBLE_DEVICES"
  else
    nvidia-smi -L 2>/dev/null | grep -c '^GPU'
  fi
}

place_ranks() { # sets ranks, ranks_a_node and gpus_a_node (of the fullest node), placed: NODE:RANKS,..., and uneven
  local i count
  ranks=0 ranks_a_node=0 gpus_a_node=0 placed='' uneven=''
  for count in "${gpus[@]}"; do
    number count
    [ "$count" -le "$gpus_a_node" ] || gpus_a_node=$count
  done
  for ((i = 0; i < ${#nodes[@]}; i++)); do
    count=${gpus[i]}
    [ "$gpus_a_node" != 0 ] || count=${slots[i]}
    number count
    [ "$count" = 0 ] || placed+=,${nodes[i]}:$count
    [ "$count" -le "$ranks_a_node" ] || ranks_a_node=$count
    ranks=$((ranks + count))
  done
  placed=${placed#,}
  number ranks_a_node
  [ "$ranks" = $((ranks_a_node * ${#nodes[@]})) ] || uneven=$placed
}

set_threads_and_binding() { # PALS binds each rank to `depth` cores; other launchers leave the ranks of a node unbound
  number ranks_a_node cores_a_node
  depth=${CPUS_PER_RANK:-$((cores_a_node > ranks_a_node ? cores_a_node / ranks_a_node : 1))}
  number depth
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$depth}
}

check_gpus() { :; }

clear_shared_memory() { :; } # a launch has names of its own

launchers() { # those that may be right here, one a line
  local name
  for name in mpiexec mpirun; do
    # Often they are one program.
    [ "$name" = mpirun ] && cmp -s "$(command -v mpiexec)" "$(command -v mpirun)" ||
      ! command -v "$name" >/dev/null || echo "$name"
  done
}

stopped_from_outside() { [ -n "$heard" ]; }
