# shellcheck shell=bash disable=SC2154
# How many ranks run where, with how many threads, and what may start them; for common.sh. A job may ask for GPUs by any
# of Slurm's options: each GPU that it got has one rank. Without GPUs each task is a rank.

count_gpus() { # sets gpus: those of the job on each node, nodes: their names, wanted: all that it asked for, if it says
  local what where count node i
  number tasks SLURM_JOB_NUM_NODES
  gpus=() nodes=() wanted=$((9 ** 9))
  while read -r what where count; do
    number count
    case $what in
      Nodes)
        for node in $(scontrol show hostnames "$where"); do
          gpus+=("$count") nodes+=("$node")
        done
        ;;
      TresPerNode) wanted=$((count * SLURM_JOB_NUM_NODES)) ;;
      TresPerTask) wanted=$((count * tasks)) ;;
      TresPerJob) wanted=$count ;;
    esac
  done < <(ask scontrol show job -d "$job" | awk -F= '
    { sub(/^ +/, ""); split($2, words, " ") }
    # Of all types: Nodes=node[1-2] CPU_IDs=0-3 Mem=0 GRES=gpu:v100-32:4(IDX:0-3),gpu:a100:1(IDX:4)
    /^Nodes=.*GRES=/ {
      sum = 0
      for (rest = $0; match(rest, /gpu:([^:(,]*:)?[0-9]+\(/); rest = substr(rest, RSTART + RLENGTH)) {
        count = split(substr(rest, RSTART, RLENGTH - 1), parts, ":")
        sum += parts[count]
      }
      print $1, words[1], sum
    }
    /^TresPer(Job|Node|Task)=.*gpu/ {
      sum = 0
      for (rest = $0; match(rest, /gpu[:=]([^:=,]*[:=])?[0-9]+/); rest = substr(rest, RSTART + RLENGTH)) {
        count = split(substr(rest, RSTART, RLENGTH), parts, /[:=]/)
        sum += parts[count]
      }
      print $1, "-", sum
    }')
  if [ ${#gpus[@]} != "$SLURM_JOB_NUM_NODES" ]; then # there is no scontrol, or it says this in another way
    gpus=() nodes=() wanted=$((9 ** 9))
    while read -r node count; do
      gpus+=("$count") nodes+=("$node")
    done < <(gpus_of_nodes)
  fi
  if [ ${#gpus[@]} != "$SLURM_JOB_NUM_NODES" ]; then # nor is there srun
    gpus=() nodes=() count=${SLURM_GPUS_ON_NODE:-0}
    number count
    for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do gpus+=("$count"); done
  fi
}

gpus_of_nodes() ( # prints each node's name and its number of GPUs, as a step finds them that asks for none itself
  unset SLURM_GPUS SLURM_GPUS_PER_NODE SLURM_GPUS_PER_TASK SLURM_GPUS_PER_SOCKET
  unset SLURM_NTASKS_PER_GPU SLURM_TRES_PER_TASK
  # shellcheck disable=SC2016 # for the shell on each node
  srun --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 bash -c \
    'echo "$SLURMD_NODENAME ${SLURM_GPUS_ON_NODE:-0}"' 2>/dev/null | sort -V
)

place_ranks() { # sets ranks, ranks_a_node and gpus_a_node (of the fullest node), and placed: NODE:RANKS,... if uneven
  local tasks=${SLURM_NTASKS:-$SLURM_JOB_NUM_NODES} count least i
  number tasks SLURM_JOB_NUM_NODES
  asked=${SLURM_GPUS:-}${SLURM_GPUS_PER_NODE:-} # or 0
  count_gpus
  ranks=0 gpus_a_node=0 least=${gpus[0]} placed='' uneven=''
  for count in "${gpus[@]}"; do
    number count
    ranks=$((ranks + count))
    [ "$count" -le "$gpus_a_node" ] || gpus_a_node=$count
    [ "$count" -ge "$least" ] || least=$count
  done
  if [ "$ranks" = 0 ]; then
    ranks=$tasks ranks_a_node=$(((tasks + SLURM_JOB_NUM_NODES - 1) / SLURM_JOB_NUM_NODES))
    return
  fi
  # Steps ask for GPUs in the one form that does not contradict the job's own. Ranks see all of those on their node.
  unset SLURM_GPUS SLURM_GPUS_PER_NODE SLURM_GPUS_PER_TASK SLURM_GPUS_PER_SOCKET
  unset SLURM_NTASKS_PER_GPU SLURM_TRES_PER_TASK
  number wanted
  if [ "$wanted" -lt "$ranks" ] && [ $((wanted % SLURM_JOB_NUM_NODES)) = 0 ]; then
    # With --exclusive a job gets whole nodes, and need not use all of them.
    ranks=$wanted gpus_a_node=$((wanted / SLURM_JOB_NUM_NODES))
    least=$gpus_a_node
    export SLURM_GPUS_PER_NODE=$gpus_a_node
  else
    export SLURM_GPUS=$ranks
  fi
  ranks_a_node=$gpus_a_node
  if [ "$least" != "$gpus_a_node" ]; then
    for ((i = 0; i < ${#gpus[@]}; i++)); do
      [ "${gpus[i]}" = 0 ] || placed+=,${nodes[i]:-}:${gpus[i]}
    done
    placed=${placed#,} uneven=$placed
    say "note: the nodes have unequal numbers of GPUs, $placed: --gpus-per-node=N gives N to each"
  fi
  if [ "$ranks" != "$tasks" ]; then
    say "note: $ranks ranks, one for each GPU, where the job asked for $tasks tasks"
    # For the launchers that read them.
    unset SLURM_NTASKS_PER_NODE
    export SLURM_NTASKS=$ranks SLURM_NPROCS=$ranks SLURM_TASKS_PER_NODE="$ranks_a_node(x$SLURM_JOB_NUM_NODES)"
    # shellcheck disable=SC2001 # a pattern of the shell cannot end at the next comma
    [ -z "$placed" ] || SLURM_TASKS_PER_NODE=$(sed 's/[^,]*://g' <<<"$placed")
  fi
}

set_threads_and_binding() { # GPUs are not bound here: each rank takes one of those that it sees
  local cores share
  number ranks_a_node SLURM_CPUS_ON_NODE
  share=$((SLURM_CPUS_ON_NODE / ranks_a_node))
  [ "$share" -gt 0 ] || say "note: $SLURM_CPUS_ON_NODE cores for $ranks_a_node ranks on a node: --cpus-per-task," \
    "--cpus-per-gpu or --exclusive gives more"
  # The job may have more ranks than the tasks that it asked for.
  cores=${SLURM_CPUS_PER_TASK:-}
  [ -z "$cores" ] || number cores
  [ -z "$cores" ] || [ "$cores" -le "$share" ] || cores=$share
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${cores:-$((share > 1 ? share : 1))}}
  srun_options=(--kill-on-bad-exit=1 "--ntasks=$ranks")
  [ "$gpus_a_node" = 0 ] || srun_options+=("--ntasks-per-node=$ranks_a_node")
  if [ "$share" = 0 ]; then
    srun_options+=(--overcommit)
  elif [ -n "$cores" ]; then
    # Since 22.05 srun does not take it from sbatch. With this option it binds each rank to its own cores.
    srun_options+=("--cpus-per-task=$cores")
  fi
  # Without this, after `sbatch --export=...` srun would start the ranks without the variables set here.
  export SLURM_EXPORT_ENV=ALL
}

check_gpus() { # a TensorFlow for GPUs, in a job that asked for none on nodes that have some, would train on the CPUs
  local has cuda line
  [ "$gpus_a_node" = 0 ] && [ -z "$asked" ] || return 0
  has=$(scontrol show node "${SLURMD_NODENAME:-}" 2>/dev/null | sed -n 's/^ *Gres=.*\(gpu:[^ (,]*\).*/\1/p')
  [ -n "$has" ] || return 0
  line="the job asked for no GPUs, and its nodes have $has: give sbatch --gpus-per-node=N, or the form of your site"
  cuda=$("${container[@]}" python -c 'from hpc_train.horovod_build.toolchain import find_tensorflow
print(find_tensorflow().cuda or "")' 2>/dev/null)
  [ -z "$cuda" ] || fail "$line; --gpus-per-node=0 trains on the CPUs"
  say "note: $line"
}

launchers() { # those that may be right here, one a line, first the site's own choice
  local default kinds kind
  # Under srun's other distribution MPI takes each rank for a node of its own.
  if [ -z "$uneven" ] && command -v srun >/dev/null; then
    default=$(scontrol show config 2>/dev/null | sed -n 's/^MpiDefault *= *//p')
    kinds=" $(srun --mpi=list 2>&1 | grep -oE '\b(pmi2|cray_shasta|pmix(_v[0-9]+)?)\b' | tr '\n' ' ')"
    case $default in '' | none | '(null)') default=none ;; *) echo srun ;; esac
    for kind in pmi2 cray_shasta pmix $(tr ' ' '\n' <<<"$kinds" | grep pmix_ | sort -rV); do
      [[ $kinds != *" $kind "* || $kind = "$default" ]] || echo "srun --mpi=$kind"
    done
  fi
  command -v mpirun >/dev/null && echo mpirun || ! command -v mpiexec >/dev/null || echo mpiexec
}
