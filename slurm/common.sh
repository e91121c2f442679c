# shellcheck shell=bash disable=SC2034,SC2154
# Slurm's part of the templates: the job's numbers, its time limit, and how it is requeued; ranks.sh says where its
# ranks run, and job.sh does the rest. Put a site's settings into slurm/site.env (see site.env.example), and a job's on
# sbatch's command line.

given_as() { # the variable from which one of the templates' own gets its value
  case $1 in
    cores) echo SLURM_CPUS_PER_TASK ;;
    count | part) echo "the job's GRES" ;;
    most) echo RESTARTS ;;
    restart) echo SLURM_RESTART_COUNT ;;
    task) echo SLURM_ARRAY_TASK_ID ;;
    tasks) echo SLURM_NTASKS ;;
    *) echo "$1" ;;
  esac
}

explain() { # --help prints the template's own comment block; outside of a job nothing else can be done
  case ${1:-} in
    -h | --help) sed -n '1,/^#$/d; /^#/!q; s/^# \{0,1\}//p' "$0"; exit 0 ;;
  esac
  [ -n "${SLURM_JOB_ID:-}" ] && return
  echo "$0 is a batch script: submit it with \`sbatch $0 OPTIONS\`; \`bash $0 --help\` explains it" >&2
  exit 2
}

seconds_left() { # until the time limit; nothing if there is none, or it is unknown
  local end now
  end=$(SLURM_TIME_FORMAT=standard ask squeue -h -j "$job" -o %e) && end=$(date -d "${end:-unknown}" +%s 2>/dev/null)
  now=$(date +%s)
  if whole "$end" && whole "$now"; then
    echo $((end - now))
  fi
}

clear_shared_memory() { # left by killed ranks: MPICH names it by job and step, and a requeued job has the same names
  # shellcheck disable=SC2016 # for the shell on each node
  srun --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 bash -c \
    'for file in /dev/shm/mpich*; do [ -O "$file" ] && ! grep -qsF "$file" /proc/[0-9]*/maps && rm "$file"; done; true'
}

requeue() { # $1: what happened. Not for a job that Slurm is ending: a requeue would start it again, even if cancelled.
  local state problem
  state=$(ask squeue -h -j "$job" -o %T) || state="in an unknown state (${state##*: })"
  trap '' TERM # which Slurm sends in answer
  if [ "$state" != RUNNING ]; then
    say "$1; not requeued, as the job is $state: if Slurm does not restart it, give the same sbatch command with" \
      "--run $run to continue"
  elif problem=$(ask scontrol requeue "$job"); then
    say "$1, requeued: goes on in $run as restart $((restart + 1))"
  else
    say "$1, but not requeued ($problem): to continue, give the same sbatch command with --run $run"
  fi
}

stopped_from_outside() { [ -n "$heard" ] || scontrol show job "$job" 2>/dev/null | grep -q 'PreemptTime=[0-9]'; }

# shellcheck source=slurm/job.sh
source "$HPC_TRAIN/slurm/job.sh"
# shellcheck source=slurm/ranks.sh
source "$HPC_TRAIN/slurm/ranks.sh"
explain "$@"
job=$SLURM_JOB_ID job_name=$SLURM_JOB_NAME restart=${SLURM_RESTART_COUNT:-0} cluster=${SLURM_CLUSTER_NAME:-}
node_count=$SLURM_JOB_NUM_NODES node_list=$SLURM_JOB_NODELIST cores_a_node=$SLURM_CPUS_ON_NODE
more_time='--time, --signal=B:USR1@SECONDS'
number restart
# For scontrol the SLURM_JOB_ID of an array's last task means the whole array.
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
read_site_settings
