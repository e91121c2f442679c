# shellcheck shell=bash
# The container that the ranks run in, and what it is shown of the node; for common.sh.

use_container() { # container: what comes before the ranks' command; the arguments are that command's
  local runtime words word said
  # shellcheck disable=SC2153 # a setting of the user's
  [ -e "$CONTAINER" ] || fail "no container image $CONTAINER: mend CONTAINER, or unset it to use VENV"
  runtime=$(command -v apptainer || command -v singularity) ||
    fail "CONTAINER is set, but there is no apptainer here: load it with MODULES"
  container=("$runtime" exec)
  [ "${SLURM_GPUS_ON_NODE:-0}" = 0 ] || container+=(--nv)
  # Of its own accord it shows $HOME, /tmp and the working folder; data, runs and node-local disks may lie elsewhere.
  for word in "$HPC_TRAIN" "${NODE_LOCAL-${TMPDIR:-}}" "$@"; do
    [[ $word != --*=* ]] || word=${word#--*=}
    word=$(look_up "$word")
    [[ $word = -* ]] || show_folder "$word"
  done
  read -ra words <<<"${CONTAINER_OPTIONS:-}"
  container+=("${words[@]}" "$CONTAINER")
  said=$("${container[@]}" true 2>&1) ||
    fail "a container of $CONTAINER does not start: $(sed -n 's/^FATAL: *//p' <<<"$said" | grep . || tail -n 1 <<<"$said")"
}

look_up() { # a path in which variables may stand, as this node knows them
  local left=$1 found=''
  while [[ $left =~ ^([^$]*)(\$\{?([A-Za-z_][A-Za-z_0-9]*)\}?)(.*)$ ]]; do
    found+=${BASH_REMATCH[1]}${!BASH_REMATCH[3]-${BASH_REMATCH[2]}}
    left=${BASH_REMATCH[4]}
  done
  echo "$found$left"
}

show_folder() { # the folder of a file, a pattern, or what is yet to be made
  local folder=${1%%[*?[]*} name
  [[ $folder = */* || -L $folder ]] || return 0
  folder=$(realpath -ms "$folder")
  until [ -d "$folder" ]; do folder=$(dirname "$folder"); done
  # By the name that is used, and where that leads: a link in a folder that is shown would lead to nothing.
  for name in "$folder" "$(realpath "$folder")"; do
    case $name in
      / | /bin | /dev | /etc | /lib | /lib32 | /lib64 | /opt | /proc | /sbin | /sys | /usr | /var) ;; # the image has its own
      /opt/hpc-train | /opt/hpc-train/*) fail "$name would hide what the image has there: move it to another folder" ;;
      *)
        name=${name//,/\\,}
        name=${name//:/\\:}
        [[ " ${container[*]} " = *" $name "* ]] || container+=(--bind "$name")
        ;;
    esac
  done
}
