# shellcheck shell=bash disable=SC2034,SC2154
# Jobs of PBS Professional and OpenPBS. A job script (`hpc-train submit` writes it) sets HPC_TRAIN, JOB_SCRIPT (its own
# path) and settings as in site.env, reads this file, and calls `run_job COMMAND`. PBS sends nothing before the
# walltime: a timer here does, STOP_BEFORE seconds before it (120). Then the script is submitted again, with the same
# run folder (RUN) and RESTART + 1.

given_as() { # the variable from which one of the scripts' own gets its value
  case $1 in
    count) echo "the number of GPUs or slots of a node" ;;
    depth) echo CPUS_PER_RANK ;;
    margin) echo STOP_BEFORE ;;
    most) echo RESTARTS ;;
    restart) echo RESTART ;;
    *) echo "$1" ;;
  esac
}

attribute() { sed -n "s/^ *$1 = //p" <<<"$described"; } # of the job, as qstat described it

describe() { # sets described: the job's attributes, one a line, where qstat breaks long ones
  described=$("$@" qstat -f "$PBS_JOBID" 2>/dev/null | sed ':a; N; $!ba; s/\n\t//g')
}

to_seconds() { awk -F: 'NF == 3 { print $1 * 3600 + $2 * 60 + $3 }' <<<"$1"; }

seconds_left() { # until the walltime, which may have been changed; nothing if there is none, or it is unknown
  local limit used
  describe timeout 5
  limit=$(to_seconds "$(attribute Resource_List.walltime)")
  used=$(to_seconds "$(attribute resources_used.walltime)")
  limit=${limit:-$walltime} used=${used:-0}
  if whole "$limit" && whole "$used"; then
    [ "$used" -ge "$SECONDS" ] || used=$SECONDS
    echo $((limit > used ? limit - used : 0))
  fi
}

read_nodes() { # sets nodes, and for each slots and gpus; cores_a_node
  local select node slot gpu core
  nodes=() slots=() gpus=() cores_a_node=''
  select=$(attribute Resource_List.select)
  # PBS writes a chunk's host into the file as often as the chunk has mpiprocs, and the chunks in their order.
  while read -r node slot gpu core; do
    [[ $select = *ngpus=* && $gpu != - ]] || gpu=$shown
    nodes+=("$node") slots+=("$slot") gpus+=("$gpu")
    [ -n "$cores_a_node" ] || cores_a_node=${core/#[-0]/$(nproc)}
  done < <(awk -v select="$select" '
    NF { line[++lines] = $1; if (!slots[$1]++) name[++names] = $1 }
    END {
      chunks = split(select, chunk, "+")
      for (c = 1; c <= chunks; c++) {
        times = has["mpiprocs"] = 1; has["ngpus"] = has["ncpus"] = 0
        parts = split(chunk[c], part, ":")
        for (p = 1; p <= parts; p++) if (split(part[p], pair, "=") == 2) has[pair[1]] = pair[2]; else times = part[p]
        for (; times > 0; times--) {
          gpus[line[at + 1]] += has["ngpus"]; cores[line[at + 1]] += has["ncpus"]
          at += has["mpiprocs"]
        }
      }
      for (n = 1; n <= names; n++)
        print name[n], slots[name[n]], at == lines ? gpus[name[n]] : "-", at == lines ? cores[name[n]] : "-"
    }' "$PBS_NODEFILE")
}

start_timer() { # sends USR1 to this shell before the walltime
  local left
  left=$(seconds_left)
  if ! whole "$left"; then
    say "note: qstat names no walltime for this job: it cannot stop at a checkpoint before it, and go on in a new job"
    return
  fi
  [ "$left" -gt "$margin" ] || fail "$left seconds are left before the walltime, and the ranks would stop $margin" \
    "seconds before it: ask for a longer walltime, or set STOP_BEFORE"
  {
    trap 'kill "$!"; exit' TERM
    while [ "$left" -gt "$margin" ]; do
      number left margin
      timeout $((left - margin)) tail --pid=$$ -f /dev/null &
      wait $!
      [ $? = 124 ] || exit # the job has ended
      left=$(seconds_left)
    done
    kill -USR1 $$
  } &
  timer=$!
  trap 'kill "$timer" 2>/dev/null' EXIT
}

requeue() { # $1: what happened. Submits the script again; but what qdel ended long before the walltime stays ended
  local left answer on="\`qsub -v RUN=$run $JOB_SCRIPT\` continues"
  left=$(seconds_left)
  trap '' TERM
  # TERM also comes at the walltime itself.
  if [ "${heard/TERM/}" != "$heard" ] && [ "${left:-999}" -gt 30 ]; then
    say "$1; not submitted again, as the job was ended before its walltime: if PBS does not run it again, $on"
  elif answer=$(RUN=$run RESTART=$((restart + 1)) \
    ask qsub -W "depend=afterany:$PBS_JOBID" -v RUN,RESTART "$JOB_SCRIPT"); then
    say "$1, submitted again as job $answer: goes on in $run as restart $((restart + 1))"
  else
    say "$1, but not submitted again ($answer): $on"
  fi
}

# shellcheck source=slurm/job.sh
source "$HPC_TRAIN/slurm/job.sh"
# shellcheck source=slurm/nodes.sh
source "$HPC_TRAIN/slurm/nodes.sh"
[ -n "${PBS_JOBID:-}" ] || fail "$0 is a batch script of PBS: submit it with \`qsub $0\`"
[ -z "${PBS_ARRAY_INDEX:-}" ] || fail "a job array cannot go on in new jobs: submit a job for each run"
[ -s "${PBS_NODEFILE:-}" ] || fail "PBS_NODEFILE is '${PBS_NODEFILE:-}', which is no file that names the job's nodes"
[ -f "${JOB_SCRIPT:-}" ] || fail "JOB_SCRIPT is '${JOB_SCRIPT:-}': set it to the path of this script, which the job" \
  "submits again"
cd "${PBS_O_WORKDIR:-.}" || fail "cannot enter $PBS_O_WORKDIR, in which the job was submitted"
job=${PBS_JOBID%%.*} cluster=${PBS_JOBID#*.} job_name=${PBS_JOBNAME:-job} restart=${RESTART:-0} handed_on=${RUN:-}
more_time='-l walltime, STOP_BEFORE'
number restart
read_site_settings
# PBS sets both to the cores of all ranks of a node.
[ "${OMP_NUM_THREADS:-}" != "${NCPUS:-}" ] || unset OMP_NUM_THREADS
margin=${STOP_BEFORE:-120} shown=$(gpus_shown)
number margin
describe ask
walltime=$(to_seconds "$(attribute Resource_List.walltime)")
read_nodes
node_count=${#nodes[@]} node_list=${nodes[*]}
start_timer
