# shellcheck shell=bash disable=SC2154
# Which program starts the ranks, and with which options; for job.sh.

launcher_options() { # sets launcher: the words of $1, and the options that this kind of launcher needs
  read -ra launcher <<<"$1"
  case "${launcher[0]##*/} $("${launcher[0]}" --version 2>&1)" in
    srun*)
      [ -z "$uneven" ] || fail "srun places ranks evenly, and the GPUs are not ($uneven): give sbatch --gpus-per-node=N"
      launcher=("${launcher[0]}" "${srun_options[@]}" "${launcher[@]:1}")
      ;;
    ibrun*) launcher+=(-n "$ranks") ;; # of TACC, over any MPI
    *"Open MPI"* | *OpenRTE*)
      launcher+=(-n "$ranks" --bind-to none)
      [ -n "$placed" ] && launcher+=(--host "$placed" --map-by slot) || launcher+=(--map-by "ppr:$ranks_a_node:node")
      [ "$(id -u)" != 0 ] || launcher+=(--allow-run-as-root)
      ;;
    *)
      launcher+=(-n "$ranks")
      if "${launcher[0]}" --help 2>&1 | grep -q -e --cpu-bind; then # PALS, of Cray systems with PBS
        [ -z "$uneven" ] || fail "PALS places ranks evenly, and the GPUs are not ($uneven): ask for equal nodes"
        launcher+=(-ppn "$ranks_a_node" --depth "${depth:-1}" --cpu-bind depth)
      else # MPICH, Intel MPI
        [ -n "$placed" ] && launcher+=(-hosts "$placed") || launcher+=(-ppn "$ranks_a_node")
      fi
      ;;
  esac
  [ "$gpus_a_node" = 0 ] || case ${GPU_AFFINITY:-} in
    '') ;;
    forward | reverse) launcher+=(bash "$HPC_TRAIN/slurm/one_gpu.sh" "$GPU_AFFINITY" "$gpus_a_node") ;;
    *) fail "GPU_AFFINITY is '$GPU_AFFINITY', and not forward or reverse" ;;
  esac
}

choose_launcher() { # LAUNCHER, or the first under which the ranks find each other, as the doctor checks
  local candidates=("${LAUNCHER:-}") candidate answer works known before='' memory
  # What was right before for a cluster and environment is tried first, then what the site's file prefers.
  memory=${XDG_CACHE_HOME:-$HOME/.cache}/hpc-train/launchers
  known="$cluster|$environment|${MODULES:-}|${PREFERRED_LAUNCHER:-}|"
  if [ -z "${LAUNCHER:-}" ]; then
    before=$(grep -sF "$known" "$memory" | tail -n 1)
    before=${before#"$known"}
    mapfile -t candidates < <({
      [ -n "$uneven" ] || echo "${PREFERRED_LAUNCHER:-}"
      launchers
    } | awk 'NF && !seen[$0]++')
    [[ -z $before || " ${candidates[*]} " != *" $before "* ]] || candidates=("$before" "${candidates[@]}")
  fi
  for candidate in "${candidates[@]}"; do
    launcher_options "$candidate"
    # A shared file system may need long to give Python to a thousand ranks.
    answer=$(timeout -k 5 150 "${launcher[@]}" "${container[@]}" python -m hpc_train.cli doctor --launch \
      --ranks "$ranks" --timeout 120 2>&1) && works=launcher
    # The doctor's finding, or else the launcher's error message.
    answer=$(sed -nE 's/^.*launch +(ok|wrong) +//p' <<<"$answer" | grep . ||
      grep -i error <<<"$answer" | grep -v '^srun: error' || echo "$answer")
    say "${works:-rejected}: ${launcher[*]}: ${answer%%$'\n'*}"
    [ -n "$works" ] || continue
    [ -n "${LAUNCHER:-}$uneven" ] || [ "$candidate" = "$before" ] || remember "$known" "$candidate" "$memory"
    return 0
  done
  [ -n "$heard" ] || fail "no launcher makes $ranks ranks on $node_count nodes find each other: in" \
    "slurm/site.env load the MPI that Horovod was built with (MODULES), or set the launcher (LAUNCHER)"
}

remember() { # the line $1$2 replaces those that begin with $1 in the file $3, if that can be written
  { mkdir -p "${3%/*}" && { grep -vsF "$1" "$3"; echo "$1$2"; } >"$3.$job" && mv "$3.$job" "$3"; } 2>/dev/null || true
}
