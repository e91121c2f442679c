#!/bin/bash
#SBATCH --job-name=sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A_%a.out
#
# Runs one trainer with many sets of options: an array with one task for each line of a file.
#
#   sbatch --array=1-6 --gpus-per-node=4 slurm/sweep.sh hpc_train.mnist rates.txt --data shards/mnist
#
# Task N runs `python -m hpc_train.mnist`, or `python TRAINER` if the trainer is a file (mine.py). Its options are those
# on line N of rates.txt, then those after rates.txt. Blank lines and lines that begin with # do not count. In a line,
# quotes and backslashes keep words together ('a b'); nothing else is expanded. --array=1-6%2 runs at most two tasks at
# a time.
#
# Each task has its own run folder, runs/sweep-ARRAY_TASK, and is requeued and resumed by itself. To compare the tasks,
# read metrics.jsonl (one line for each epoch) and run.json (the options) in these folders.

common=${HPC_TRAIN:=${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}}/slurm/common.sh
[ -f "$common" ] || { echo "error: no $common: run sbatch in the folder of slurm/, or set HPC_TRAIN" >&2; exit 2; }
# shellcheck source=slurm/common.sh
source "$common"

wrong() { echo "error: sweep.sh: $*" >&2 && exit 2; }

trainer=${1:-} file=${2:-} task=${SLURM_ARRAY_TASK_ID:-}
[ -n "$task" ] || wrong "this job is not an array: sbatch --array=1-6 slurm/sweep.sh TRAINER FILE [OPTIONS]"
number task
[ -f "$file" ] || wrong "no file ${file:-given}: give the trainer, then a file with a line of options for each task"
[ "$(tr -d '\0' <"$file" | wc -c)" -eq "$(wc -c <"$file")" ] || wrong "$file holds NUL characters: it is no text"
shift 2
case " $* " in *" --run "* | *" --run="*) wrong "leave --run out: each task has its own run folder" ;; esac

mapfile -t lines < <(grep -v '^[[:space:]]*\(#\|$\)' "$file" | tr -d '\r')
if [ "$task" -lt 1 ] || [ "$task" -gt ${#lines[@]} ]; then
  wrong "task $task: $file has options for ${#lines[@]} tasks (blank lines and comments do not count):" \
    "sbatch --array=1-${#lines[@]}"
fi
line=${lines[task - 1]}
# xargs handles quotes like a shell, and expands and runs nothing.
mapfile -d '' options < <(xargs printf '%s\0' <<<"$line" 2>/dev/null)
wait $! || wrong "line $task of $file has an unmatched quote: $line"

case $trainer in
  *.py) run_job python "$trainer" "${options[@]}" "$@" ;;
  *) run_job python -m "$trainer" "${options[@]}" "$@" ;;
esac
