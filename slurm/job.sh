# shellcheck shell=bash disable=SC2154
# What a job does under any scheduler: it reads the settings, prepares the environment (for containers: container.sh),
# chooses the run folder and the launcher, starts the ranks, passes signals on to them, and lets the scheduler start it
# again if they have stopped at a checkpoint. common.sh (Slurm), pbs.sh and lsf.sh say how the scheduler does its part.
# No `set -eu`: modules and site.env are other people's code.

again=75 # the ranks' status if they stopped at a checkpoint and want to run again (hpc_train/training/stopping.py)

say() { echo "[$job_name $job] $*"; }
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

read_site_settings() { # variables in the job's environment come first: CONTAINER=x.sif sbatch ...
  local site=${SITE_ENV:-$HPC_TRAIN/slurm/site.env} name given=() problem
  [ -f "$site" ] || return 0
  problem=$(bash -n "$site" 2>&1) || fail "${problem%%$'\n'*}"
  for name in MODULES VENV CONTAINER CONTAINER_OPTIONS LAUNCHER RESTARTS NODE_LOCAL GPUS_PER_NODE GPU_AFFINITY \
    CPUS_PER_RANK STOP_BEFORE; do
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
    run=${handed_on:-runs/$job_name-$job}
    arguments+=(--run "$run")
  fi
}

newest_checkpoint() { # prints a name that changes with each checkpoint
  local newest checkpoints=("$run"/checkpoints/*)
  newest=${checkpoints[-1]##*/}
  echo "${newest/#part-*/*}" # parts without the file that sorts after them are no checkpoint
}

check_progress() { # RESTARTS restarts in a row without a newer checkpoint, or with next to no steps, end the job
  local newest stale=0 before='' by='' count='' most=${RESTARTS:-3} file=$run/$restarts_file
  local pace=$run/pace useful='' took='' pace_text='' poor=''
  number most
  newest=$(newest_checkpoint)
  [ ! -f "$file" ] || read -r stale before by count <"$file"
  # How the last start went: seconds in steps, seconds in all, and in words (Run.note_pace).
  [ ! -f "$pace" ] || { read -r useful took && read -r pace_text; } <"$pace"
  rm -f "$pace"
  if whole "$useful" && whole "$took"; then
    number useful
    [ $((10 * useful)) -ge "$took" ] || poor=yes
  fi
  if [ "$by" = "$job" ] && whole "$count"; then
    restart=$((count + 1))
  fi
  if [ "$restart" = 0 ]; then
    stale=0
  elif [ -f "$file" ]; then
    if ! whole "$stale"; then
      say "note: $file is damaged: counting restarts from 0"
      stale=0
    elif [ "$newest" = "$before" ] || [ -n "$poor" ]; then
      number stale
      stale=$((stale + 1))
    else
      stale=0
    fi
  fi
  # A new file: a link in its place would lead elsewhere, and a pipe would wait.
  rm -f "$file"
  echo "$stale $newest${counts_itself:+ $job $restart}" >"$file"
  say "run folder: $run, restart $restart, newest checkpoint: ${newest/#'*'/none}"
  if [ "$stale" -lt "$most" ]; then
    [ "$stale" = 0 ] || [ -z "$poor" ] ||
      say "note: of its $took s the last start had $useful s for steps: $most such starts in a row end the job"
    return
  fi
  [ -z "$poor" ] || fail "$stale restarts in a row got next to nowhere: not requeued; the time limit is too short:" \
    "${pace_text//[![:print:]]/} ($more_time)"
  fail "$stale restarts in a row without a newer checkpoint: not requeued; give the job more time ($more_time), or" \
    "write checkpoints more often (--checkpoint-every)"
}

pass_signal() { # USR1: the time limit is near. TERM: somebody ends the job. The ranks shall stop at a checkpoint.
  local left
  if [ -n "$ranks_pid" ] && kill -USR1 "$ranks_pid" && [ "$1$heard" = USR1 ]; then
    # If they cannot (for example while they stage data), the job ends them when 1/8 of the time left remains.
    left=$(seconds_left)
    if whole "$left" && [ "$left" -gt 8 ]; then # else there is no limit, or it is unknown
      { timeout $((left * 7 / 8)) tail --pid="$ranks_pid" -f /dev/null; [ $? != 124 ] || kill -ALRM $$; } &
    fi
  fi
  heard+=$1
}

run_ranks() { # a command on all ranks; returns its status. In the background: bash handles no signal while it runs one
  local status heard_before=-
  [ "$restart" = 0 ] || clear_shared_memory
  [ -n "${launcher[*]}" ] || choose_launcher
  [ -z "$heard" ] || return 138
  # The time since the job's start is that of its first command alone.
  HPC_TRAIN_JOB_BEGINS=${ranks_pid:-yes} "${launcher[@]}" "${container[@]}" "$@" &
  ranks_pid=$!
  [ -z "$heard" ] || kill -USR1 "$ranks_pid" # a signal came since the line before last
  until [ "$heard_before" = "$heard" ]; do # a signal ends `wait` early
    heard_before=$heard
    wait "$ranks_pid"
    status=$?
  done
  return "$status"
}

ask() { # runs one of the scheduler's commands, and again if the scheduler is too busy to answer
  local try answer status
  for try in 1 2 3 4 5; do
    [ "$try" = 1 ] || sleep 3
    answer=$("$@" 2>&1)
    status=$?
    case $status in 0 | 127) break ;; esac # 127: there is no such command
  done
  echo "$answer"
  return "$status"
}

yield_if_crowded() { # ranks that wait must leave the core to ranks that work: MPICH, Open MPI
  [ "$ranks_a_node" -le "$(getconf _NPROCESSORS_ONLN)" ] ||
    export MPIR_CVAR_ENABLE_HEAVY_YIELD=1 OMPI_MCA_mpi_yield_when_idle=1
}

prepare() { # where and how the ranks run; arguments: the ranks' arguments
  activate_environment "$@"
  place_ranks
  set_threads_and_binding
  yield_if_crowded
  check_gpus
}

run_job() { # starts or resumes a trainer in its run folder, and requeues the job if the trainer has not finished
  choose_run_folder "$@"
  prepare "${arguments[@]}"
  check_program "$@"
  mkdir -p "$run" || fail "cannot make the run folder $run: give one on the shared file system with --run"
  say "$ranks ranks on $node_count nodes ($node_list); on a node: ranks $ranks_a_node," \
    "cores $cores_a_node, GPUs $gpus_a_node; environment: $environment"
  run_to_the_end "${arguments[@]}"
}

run_to_the_end() { # a command on all ranks, which works in the folder $run; requeues the job if it has not finished
  local status
  check_progress
  trap 'pass_signal USR1' USR1
  trap 'pass_signal TERM' TERM
  trap 'requeue "the ranks did not stop in time"; exit $again' ALRM
  run_ranks "$@"
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
# shellcheck source=slurm/launcher.sh
source "$HPC_TRAIN/slurm/launcher.sh"
heard='' ranks_pid='' launcher=() handed_on='' counts_itself='' restarts_file=restarts
# Signals that come before the ranks have started are for them, too.
trap 'heard+=USR1' USR1
trap 'heard+=TERM' TERM
