# shellcheck shell=bash
# What the templates share: they read the settings, prepare environment (for containers: container.sh) and launcher
# (ranks.sh), choose the run folder, start the ranks, and requeue the job. Put a site's settings into slurm/site.env
# (see site.env.example), and a job's on sbatch's command line. No `set -eu`: modules and site.env are other people's code.

again=75 # the ranks' status if they stopped at a checkpoint and want to run again (hpc_train/training/stopping.py)

say() { echo "[$SLURM_JOB_NAME $job] $*"; }
fail() { echo "error: $*" >&2; exit 1; }

whole() { # whether $1 is a whole number. Bash runs commands that stand in the text that it calculates with
  case $1 in
    0) ;;
    '' | *[!0123456789]* | 0* | ????????????????*) return 1 ;; # 16 digits, and bash might lose the first
  esac
}

number() { # ends the job unless the variables named here hold whole numbers
  local name
  for name; do
    whole "${!name-}" || fail "$(given_as "$name") is '${!name-}', which is not a whole number"
  done
}

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

read_site_settings() { # variables in sbatch's environment come first: CONTAINER=x.sif sbatch ...
  local site=$HPC_TRAIN/slurm/site.env name given=() problem
  [ -f "$site" ] || return 0
  problem=$(bash -n "$site" 2>&1) || fail "${problem%%$'\n'*}"
  for name in MODULES VENV CONTAINER CONTAINER_OPTIONS LAUNCHER RESTARTS NODE_LOCAL; do
    [ -z "${!name+set}" ] || given+=("$name=${!name}")
  done
  set -a # the ranks get all of it
  # shellcheck source=/dev/null
  source "$site"
  set +aeu +o pipefail # a script that ends at the first error could not requeue the job
  [ ${#given[@]} = 0 ] || export "${given[@]}"
}

activate_environment() { # modules, then the container or the virtual environment; arguments: the ranks' arguments
  container=()
  # Packages in ~/.local would come before those of the environment.
  export PYTHONNOUSERSITE=1
  if [ -n "${MODULES:-}" ]; then
    type module &>/dev/null || fail "MODULES is set, but batch jobs have no command \`module\` here: in" \
      "slurm/site.env source the script that defines it (such as /etc/profile.d/modules.sh or lmod.sh)"
    # shellcheck disable=SC2086 # one word for each module
    module load $MODULES || fail "\`module load $MODULES\` failed: correct MODULES in slurm/site.env"
    set +eu +o pipefail
  fi
  if [ -n "${CONTAINER:-}" ]; then
    use_container "$@"
    environment=$CONTAINER
  elif [ -n "${VENV=$HPC_TRAIN/.venv}" ]; then
    [ -x "$VENV/bin/python" ] || fail "no virtual environment $VENV with a working python: in slurm/site.env set VENV" \
      "to the environment that has hpc-train (in a clone \`make venv\` makes it), and add the Python that it was made" \
      "with to MODULES"
    PATH=$VENV/bin:$PATH
    environment=$VENV
  else
    environment=$(command -v python) || fail "no python on PATH: correct MODULES or set VENV in slurm/site.env"
  fi
}

check_program() { # before any rank starts: does the trainer exist?
  local answer status
  if [ "$2" != -m ]; then
    [ -f "$2" ] || fail "no file $2 in $PWD: check the name of the trainer"
    return
  fi
  answer=$("${container[@]}" python - "$3" 2>&1 <<'P'
import importlib.util, sys
try:
    found = importlib.util.find_spec(sys.argv[1])
except ModuleNotFoundError:
    found = None
sys.exit(0 if found else 3)
P
  )
  status=$?
  [ $status != 3 ] || fail "$environment has no module $3: check the name, and that hpc-train is installed there"
  [ $status = 0 ] || [ -n "$heard" ] || fail "cannot look for $3 in $environment: $(tail -n 1 <<<"$answer")"
}

choose_run_folder() { # sets run: the user's --run, or a new folder for this job; and arguments: those of the trainer
  local i next
  run='' arguments=("$@" --resume)
  for ((i = 1; i <= $#; i++)); do
    next=$((i + 1))
    case ${!i} in
      --run) run=${!next:-} ;;
      --run=*) run=${!i#--run=} ;;
    esac
  done
  if [ -z "$run" ]; then
    run=runs/$SLURM_JOB_NAME-$job
    arguments+=(--run "$run")
  fi
}

check_progress() { # RESTARTS restarts in a row without a newer checkpoint end the job
  local checkpoints=("$run"/checkpoints/*) newest stale=0 before='' most=${RESTARTS:-3}
  number most
  newest=${checkpoints[-1]##*/}
  if [ "$restart" -gt 0 ] && [ -f "$run/restarts" ]; then
    read -r stale before <"$run/restarts"
    if ! whole "$stale"; then
      say "note: $run/restarts is damaged: counting restarts from 0"
      stale=0
    elif [ "$newest" = "$before" ]; then
      number stale
      stale=$((stale + 1))
    else
      stale=0
    fi
  fi
  # A new file: a link in its place would lead elsewhere, and a pipe would wait.
  rm -f "$run/restarts"
  echo "$stale $newest" >"$run/restarts"
  say "run folder: $run, restart $restart, newest checkpoint: ${newest/#'*'/none}"
  [ "$stale" -lt "$most" ] || fail "$stale restarts in a row without a newer checkpoint: not requeued; give" \
    "the job more time (--time, --signal=B:USR1@SECONDS), or write checkpoints more often (--checkpoint-every)"
}

pass_signal() { # USR1: the time limit is near. TERM: scancel or a pre-emption. The ranks shall stop at a checkpoint.
  local end now left=0
  if [ -n "$ranks_pid" ] && kill -USR1 "$ranks_pid" && [ "$1$heard" = USR1 ]; then
    # If they cannot (for example while they stage data), the job ends them when 1/8 of the time left remains.
    end=$(ask squeue -h -j "$job" -o %e) && end=$(date -d "${end:-unknown}" +%s 2>/dev/null)
    now=$(date +%s)
    if whole "$end" && whole "$now"; then
      left=$((end - now))
    fi
    if [ "$left" -gt 8 ]; then # else there is no limit, or it is unknown
      { timeout $((left * 7 / 8)) tail --pid="$ranks_pid" -f /dev/null; [ $? != 124 ] || kill -ALRM $$; } &
    fi
  fi
  heard+=$1
}

clear_shared_memory() { # left by killed ranks: MPICH names it by job and step, and a requeued job has the same names
  # shellcheck disable=SC2016 # for the shell on each node
  srun --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 bash -c \
    'for file in /dev/shm/mpich*; do [ -O "$file" ] && ! grep -qsF "$file" /proc/[0-9]*/maps && rm "$file"; done; true'
}

run_ranks() { # a command on all ranks; returns its status. In the background: bash handles no signal while it runs one
  local status heard_before=-
  [ "$restart" = 0 ] || clear_shared_memory
  [ -n "${launcher[*]}" ] || choose_launcher
  [ -z "$heard" ] || return 138
  "${launcher[@]}" "${container[@]}" "$@" &
  ranks_pid=$!
  [ -z "$heard" ] || kill -USR1 "$ranks_pid" # a signal came since the line before last
  until [ "$heard_before" = "$heard" ]; do # a signal ends `wait` early
    heard_before=$heard
    wait "$ranks_pid"
    status=$?
  done
  return "$status"
}

ask() { # runs one of Slurm's commands, and again if the controller is too busy to answer
  local try answer status
  for try in 1 2 3 4 5; do
    [ "$try" = 1 ] || sleep 3
    answer=$(SLURM_TIME_FORMAT=standard "$@" 2>&1)
    status=$?
    case $status in 0 | 127) break ;; esac # 127: there is no such command
  done
  echo "$answer"
  return "$status"
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

prepare() { # where and how the ranks run; arguments: the ranks' arguments
  activate_environment "$@"
  place_ranks
  set_threads_and_binding
  check_gpus
}

run_job() { # starts or resumes a trainer in its run folder, and requeues the job if the trainer has not finished
  local status
  choose_run_folder "$@"
  prepare "${arguments[@]}"
  check_program "$@"
  mkdir -p "$run" || fail "cannot make the run folder $run: give one on the shared file system with --run"
  say "$ranks ranks on $SLURM_JOB_NUM_NODES nodes ($SLURM_JOB_NODELIST); on a node: ranks $ranks_a_node," \
    "cores $SLURM_CPUS_ON_NODE, GPUs $gpus_a_node; environment: $environment"
  check_progress
  trap 'pass_signal USR1' USR1
  trap 'pass_signal TERM' TERM
  trap 'requeue "the ranks did not stop in time"; exit $again' ALRM
  run_ranks "${arguments[@]}"
  status=$?
  if [ $status = 0 ]; then
    say "finished: $run"
  elif [ $status = $again ]; then
    requeue "stopped at a checkpoint"
  elif [ $status = 138 ] || stopped_from_outside; then
    # The signal came before the ranks were ready for it (138 is SIGUSR1, 143 SIGTERM; MPICH's mpirun returns 255), or
    # their launcher ended them (9, 137) when the first of them ended. If it was a bug, it will happen again, without a
    # signal.
    requeue "ended with status $status after a signal"
  else
    say "failed with status $status, not requeued: $run"
  fi
  exit "$status"
}

# shellcheck source=slurm/container.sh
source "$HPC_TRAIN/slurm/container.sh"
# shellcheck source=slurm/ranks.sh
source "$HPC_TRAIN/slurm/ranks.sh"
explain "$@"
job=$SLURM_JOB_ID restart=${SLURM_RESTART_COUNT:-0} heard='' ranks_pid='' launcher=()
number restart
# Signals that come before the ranks have started are for them, too.
trap 'heard+=USR1' USR1
trap 'heard+=TERM' TERM
# For scontrol the SLURM_JOB_ID of an array's last task means the whole array.
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
read_site_settings
