# shellcheck shell=bash disable=SC2034,SC2154
# Jobs of LSF. A job script (`hpc-train submit` writes it) sets HPC_TRAIN and settings as in site.env, reads this file,
# and calls `run_job COMMAND`. With `#BSUB -wa USR1 -wt 2` LSF sends USR1 two minutes before the run limit, with
# `#BSUB -Q 75` it starts a job again that ends with status 75, and with `#BSUB -r` one whose host has failed.

given_as() { # the variable from which one of the scripts' own gets its value
  case $1 in
    count) echo "the number of GPUs or slots of a node" ;;
    depth) echo CPUS_PER_RANK ;;
    most) echo RESTARTS ;;
    *) echo "$1" ;;
  esac
}

seconds_left() { echo "${STOP_BEFORE:-120}"; } # asked when the warning has come

read_nodes() { # sets nodes, and for each slots and gpus; cores_a_node
  local node slot
  nodes=() slots=() gpus=() cores_a_node=''
  while read -r node slot; do
    nodes+=("$node") slots+=("$slot") gpus+=("$shown")
    cores_a_node=${cores_a_node:-$slot}
  done < <(
    if [ -s "${LSB_DJOB_HOSTFILE:-}" ]; then
      awk 'NF { if (!slots[$1]++) name[++names] = $1 }
        END { for (n = 1; n <= names; n++) print name[n], slots[name[n]] }' "$LSB_DJOB_HOSTFILE"
    else
      awk '{ for (n = 1; n < NF; n += 2) print $n, $(n + 1) }' <<<"${LSB_MCPU_HOSTS:-}"
    fi
  )
}

requeue() { # $1: what happened. LSF starts a job again by its status
  if [[ $heard = *TERM* ]]; then
    say "$1; not requeued, as the job was killed: submit the same job with --run $run to continue"
    exit 143
  fi
  say "$1, requeued by status $again (#BSUB -Q $again): goes on in $run as restart $((restart + 1))"
  exit $again
}

# shellcheck source=slurm/job.sh
source "$HPC_TRAIN/slurm/job.sh"
# shellcheck source=slurm/nodes.sh
source "$HPC_TRAIN/slurm/nodes.sh"
[ -n "${LSB_JOBID:-}" ] || fail "$0 is a batch script of LSF: submit it with \`bsub < $0\`"
[ "${LSB_JOBINDEX:-0}" = 0 ] || fail "job arrays are not supported: submit a job for each run"
# bkill sends INT before TERM.
trap 'heard+=TERM' INT
# LSF does not say how often it has started a job: the run folder does.
job=$LSB_JOBID cluster=LSF job_name=${LSB_JOBNAME//[!A-Za-z0-9._-]/_} restart=0 counts_itself=yes
more_time='-W, -wt'
read_site_settings
shown=$(gpus_shown)
read_nodes
[ ${#nodes[@]} != 0 ] || fail "neither LSB_DJOB_HOSTFILE nor LSB_MCPU_HOSTS names the hosts of the job"
node_count=${#nodes[@]} node_list=${nodes[*]}
