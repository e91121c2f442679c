# shellcheck shell=bash
# What the templates share. A site's settings belong in slurm/site.env (see site.env.example), a job's on sbatch's
# command line; here is what is done with them: settings, environment (of a container: container.sh), threads and
# binding, launcher, run folder, the run itself, requeue. No `set -eu`: modules and site.env are other people's code.

again=75 # the ranks' status when they stopped at a checkpoint, to be run again (EX_TEMPFAIL; hpc_train/training/stopping.py)

say() { echo "[$SLURM_JOB_NAME $job] $*"; }
fail() { echo "error: $*" >&2; exit 1; }

explain() { # --help is the template's own comment block; without Slurm there is nothing else to do by hand
  case ${1:-} in
    -h | --help) sed -n '1,/^#$/d; /^#/!q; s/^# \{0,1\}//p' "$0"; exit 0 ;;
  esac
  [ -n "${SLURM_JOB_ID:-}" ] && return
  echo "$0 is a batch script: submit it with \`sbatch $0 OPTIONS\`; \`$0 --help\` tells more" >&2
  exit 2
}

read_site_settings() { # what stands in sbatch's environment wins: CONTAINER=x.sif sbatch ...
  local site=$HPC_TRAIN/slurm/site.env name given=() problem
  [ -f "$site" ] || return 0
  problem=$(bash -n "$site" 2>&1) || fail "${problem%%$'\n'*}"
  for name in MODULES VENV CONTAINER CONTAINER_OPTIONS LAUNCHER RESTARTS NODE_LOCAL; do
    [ -z "${!name+set}" ] || given+=("$name=${!name}")
  done
  set -a # the ranks get all of it
  # shellcheck source=/dev/null
  source "$site"
  set +aeu +o pipefail # a script that ends at the first status that is not 0 could requeue nothing
  [ ${#given[@]} = 0 ] || export "${given[@]}"
}

activate_environment() { # modules, then the container or the virtual environment; the arguments are the ranks'
  container=()
  # Packages in ~/.local would come before those of the environment.
  export PYTHONNOUSERSITE=1
  if [ -n "${MODULES:-}" ]; then
    type module &>/dev/null || fail "MODULES is set, but a batch job knows no command \`module\` here: source the" \
      "site's script for it (/etc/profile.d/modules.sh, lmod.sh) in slurm/site.env"
    # shellcheck disable=SC2086 # one word a module
    module load $MODULES || fail "\`module load $MODULES\` failed: mend MODULES in slurm/site.env"
    set +eu +o pipefail
  fi
  if [ -n "${CONTAINER:-}" ]; then
    use_container "$@"
    environment=$CONTAINER
  elif [ -n "${VENV=$HPC_TRAIN/.venv}" ]; then
    [ -x "$VENV/bin/python" ] || fail "no virtual environment $VENV with a python that runs: set VENV in" \
      "slurm/site.env to the one that has hpc-train (\`make venv\` makes it in a clone); load with MODULES the Python" \
      "that it was made with"
    PATH=$VENV/bin:$PATH
    environment=$VENV
  else
    environment=$(command -v python) || fail "no python on PATH: mend MODULES, or set VENV"
  fi
}

set_threads_and_binding() { # GPUs are not bound here: each rank takes its own of those that it sees
  ranks=${SLURM_NTASKS:-$SLURM_JOB_NUM_NODES}
  ranks_a_node=$(((ranks + SLURM_JOB_NUM_NODES - 1) / SLURM_JOB_NUM_NODES))
  local share=$((SLURM_CPUS_ON_NODE / ranks_a_node))
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-$((share > 1 ? share : 1))}}
  # Since 22.05 srun does not take --cpus-per-task from sbatch; told, it binds each rank to cores of its own.
  srun_options=(--kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"})
  # After `sbatch --export=...` srun would start the ranks without what was set above.
  export SLURM_EXPORT_ENV=ALL
  if [ "$ranks_a_node" -gt "$(getconf _NPROCESSORS_ONLN)" ]; then
    # Ranks that wait must leave the core to those that work: MPICH, Open MPI.
    export MPIR_CVAR_ENABLE_HEAVY_YIELD=1 OMPI_MCA_mpi_yield_when_idle=1
  fi
}

launcher_options() { # launcher: the words of $1, with what its kind needs
  read -ra launcher <<<"$1"
  case "${launcher[0]##*/} $("${launcher[0]}" --version 2>&1)" in
    srun*) launcher=("${launcher[0]}" "${srun_options[@]}" "${launcher[@]:1}") ;;
    *"Open MPI"* | *OpenRTE*)
      launcher+=(-n "$ranks" --map-by "ppr:$ranks_a_node:node" --bind-to none)
      [ "$(id -u)" != 0 ] || launcher+=(--allow-run-as-root)
      ;;
    *) launcher+=(-n "$ranks" -ppn "$ranks_a_node") ;; # MPICH, Intel MPI
  esac
}

choose_launcher() { # LAUNCHER, or the first under which the ranks find each other: they are asked
  local candidates=("${LAUNCHER:-}") kind candidate answer works
  if [ -z "${LAUNCHER:-}" ]; then
    candidates=()
    for kind in pmi2 pmix; do
      ! srun --mpi=list 2>&1 | grep -qw "$kind" || candidates+=("srun --mpi=$kind")
    done
    ! command -v mpirun >/dev/null || candidates+=(mpirun)
  fi
  for candidate in "${candidates[@]}"; do
    launcher_options "$candidate"
    # A shared file system may take its time to give Python to a thousand ranks.
    answer=$(timeout -k 5 150 "${launcher[@]}" "${container[@]}" python -m hpc_train.cli doctor --launch \
      --ranks "$ranks" --timeout 120 2>&1) && works=launcher
    # The doctor's finding, or else the launcher's complaint.
    answer=$(sed -nE 's/^.*launch +(ok|wrong) +//p' <<<"$answer" | grep . ||
      grep -i error <<<"$answer" | grep -v '^srun: error' || echo "$answer")
    say "${works:-rejected}: ${launcher[*]}: ${answer%%$'\n'*}"
    [ -z "$works" ] || return 0
  done
  [ -n "$heard" ] || fail "no launcher makes $ranks ranks on $SLURM_JOB_NUM_NODES nodes find each other: load the MPI" \
    "that Horovod was built with (MODULES), or name the launcher (LAUNCHER) in slurm/site.env"
}

check_program() { # before any rank starts: is there such a trainer?
  local said status
  if [ "$2" != -m ]; then
    [ -f "$2" ] || fail "no file $2 in $PWD"
    return
  fi
  said=$("${container[@]}" python - "$3" 2>&1 <<'P'
import importlib.util, sys
try:
    found = importlib.util.find_spec(sys.argv[1])
except ModuleNotFoundError:
    found = None
sys.exit(0 if found else 3)
P
  )
  status=$?
  [ $status != 3 ] || fail "$environment has no module $3: is the name right, and hpc-train installed there?"
  [ $status = 0 ] || [ -n "$heard" ] || fail "$environment cannot say whether it has $3: $(tail -n 1 <<<"$said")"
}

choose_run_folder() { # run: the user's --run, or one of this job's own; arguments: what the trainer is started with
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
  local checkpoints=("$run"/checkpoints/*) newest stale=0 before=''
  newest=${checkpoints[-1]##*/}
  if [ "$restart" -gt 0 ] && [ -f "$run/restarts" ]; then
    read -r stale before <"$run/restarts"
    [ "$newest" = "$before" ] && stale=$((stale + 1)) || stale=0
  fi
  echo "$stale $newest" >"$run/restarts"
  say "run folder: $run, restart $restart, newest checkpoint: ${newest/#'*'/none}"
  [ "$stale" -lt "${RESTARTS:-3}" ] || fail "$stale restarts in a row without a newer checkpoint: not requeued; allow" \
    "more time (--time, --signal=B:USR1@SECONDS), or checkpoint more often (--checkpoint-every)"
}

pass_signal() { # USR1: the time limit is near. TERM: scancel or a pre-emption. The ranks stop at a checkpoint.
  local end left
  if [ -n "$ranks_pid" ] && kill -USR1 "$ranks_pid" && [ "$1$heard" = USR1 ]; then
    # Where they cannot (in the midst of staging, say), they are stopped when 1/8 of what time is left remains.
    end=$(ask squeue -h -j "$job" -o %e) && end=$(date -d "${end:-unknown}" +%s 2>/dev/null) &&
      left=$((end - $(date +%s)))
    if [ "${left:-0}" -gt 8 ]; then # else there is no limit, or it is not known
      { timeout $((left * 7 / 8)) tail --pid="$ranks_pid" -f /dev/null; [ $? != 124 ] || kill -ALRM $$; } &
    fi
  fi
  heard+=$1
}

clear_shared_memory() { # that killed ranks left: MPICH names it by job and step, which a requeued job has once more
  # shellcheck disable=SC2016 # for the shell on each node
  srun --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 bash -c \
    'for file in /dev/shm/mpich*; do [ -O "$file" ] && ! grep -qsF "$file" /proc/[0-9]*/maps && rm "$file"; done; true'
}

run_ranks() { # a command on all ranks; returns its status. In the background, as bash hears no signal while it runs one
  local status heard_before=-
  [ "$restart" = 0 ] || clear_shared_memory
  [ -n "${launcher[*]}" ] || choose_launcher
  [ -z "$heard" ] || return 138
  "${launcher[@]}" "${container[@]}" "$@" &
  ranks_pid=$!
  [ -z "$heard" ] || kill -USR1 "$ranks_pid" # heard since the line before last
  until [ "$heard_before" = "$heard" ]; do # a signal ends `wait` early
    heard_before=$heard
    wait "$ranks_pid"
    status=$?
  done
  return "$status"
}

ask() { # one of Slurm's commands; again where the controller is too busy to answer
  local try answer
  for try in 1 2 3 4 5; do
    [ "$try" = 1 ] || sleep 3
    answer=$(SLURM_TIME_FORMAT=standard "$@" 2>&1) && break
  done
  local status=$?
  echo "$answer"
  return "$status"
}

requeue() { # $1: what happened. A job that Slurm is ending already would be revived by it, a cancelled one too.
  local state problem
  state=$(ask squeue -h -j "$job" -o %T)
  trap '' TERM # which Slurm sends in answer
  if [ "$state" != RUNNING ]; then
    say "$1; not requeued, as the job is $state: unless Slurm brings it back, the same sbatch command with --run $run" \
      "goes on"
  elif problem=$(ask scontrol requeue "$job"); then
    say "$1, requeued: goes on in $run as restart $((restart + 1))"
  else
    say "$1, but not requeued ($problem): the same sbatch command with --run $run goes on"
  fi
}

stopped_from_outside() { [ -n "$heard" ] || scontrol show job "$job" | grep -q 'PreemptTime=[0-9]'; }

prepare() { # where and how ranks run; arguments: what they are started with
  activate_environment "$@"
  set_threads_and_binding
}

run_job() { # a trainer in its run folder: begun or resumed, and requeued where it is not finished
  local status
  choose_run_folder "$@"
  prepare "${arguments[@]}"
  check_program "$@"
  mkdir -p "$run" || fail "cannot make the run folder $run: name one on the shared file system with --run"
  say "$ranks ranks on $SLURM_JOB_NUM_NODES nodes ($SLURM_JOB_NODELIST); on a node: ranks $ranks_a_node," \
    "cores $SLURM_CPUS_ON_NODE, GPUs ${SLURM_GPUS_ON_NODE:-0}; environment: $environment"
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
    # Signalled before they were ready for it (138 is SIGUSR1, 143 SIGTERM; MPICH's mpirun says 255), or ended by their
    # launcher (9, 137) as the first of them ended. Where it was a bug, it comes again, and then without a signal.
    requeue "ended with status $status after a signal"
  else
    say "failed with status $status, not requeued: $run"
  fi
  exit "$status"
}

# shellcheck source=slurm/container.sh
source "$HPC_TRAIN/slurm/container.sh"
explain "$@"
job=$SLURM_JOB_ID restart=${SLURM_RESTART_COUNT:-0} heard='' ranks_pid='' launcher=()
# What comes before the ranks have started is for them as well.
trap 'heard+=USR1' USR1
trap 'heard+=TERM' TERM
# To scontrol, the SLURM_JOB_ID of an array's last task means the whole array.
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
read_site_settings
