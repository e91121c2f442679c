# shellcheck shell=bash
# The container that the ranks run in, and what it is shown of the node; for common.sh.

use_container() { # container: what comes before the ranks' command; the arguments are that command's
  local runtime words word path said
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
    # The folder of a pattern. A word without slashes is nothing of another folder, unless it is a link.
    path=${word%%[*?[]*}
    [[ $word = -* ]] || [[ $path != */* && ! -L $path ]] || show "$(realpath -ms "$path")"
  done
  read -ra words <<<"${CONTAINER_OPTIONS:-}"
  container+=("${words[@]}" "$CONTAINER")
  said=$("${container[@]}" true 2>&1) || [ -n "${heard:-}" ] || fail "a container of $CONTAINER does not start:" \
    "$(sed -n 's/^FATAL: *//p' <<<"$said" | grep . || tail -n 1 <<<"$said")"
}

look_up() { # a path in which variables may stand, as this node knows them
  local left=$1 found=''
  while [[ $left =~ ^([^$]*)(\$\{?([A-Za-z_][A-Za-z_0-9]*)\}?)(.*)$ ]]; do
    found+=${BASH_REMATCH[1]}${!BASH_REMATCH[3]-${BASH_REMATCH[2]}}
    left=${BASH_REMATCH[4]}
  done
  echo "$found$left"
}

show() { # an absolute path, or what of it is there already, and each that links on the way make of it: container
  local path=$1 folder link='' to
  until [ -e "$path" ]; do path=$(dirname "$path"); done
  if [ -d "$path" ]; then bind "$path"; else bind "$(dirname "$path")"; fi
  # A link in a folder that is shown leads nowhere inside, unless what it leads to is shown as well.
  folder=$path
  until [ "$folder" = / ]; do
    [ ! -L "$folder" ] || link=$folder
    folder=$(dirname "$folder")
  done
  [ -n "$link" ] || return 0
  to=$(readlink "$link")
  [[ $to = /* ]] || to=$(dirname "$link")/$to
  show "$(realpath -ms "$to${path#"$link"}")"
}

bind() { # a folder, unless the image has its own: container
  local folder=$1
  case $folder in
    / | /bin | /dev | /etc | /lib | /lib32 | /lib64 | /opt | /proc | /sbin | /sys | /usr | /var) return 0 ;;
    /opt/hpc-train | /opt/hpc-train/*) fail "$folder would hide what the image has there: move it to another folder" ;;
  esac
  folder=${folder//,/\\,}
  folder=${folder//:/\\:}
  [[ " ${container[*]} " = *" $folder "* ]] || container+=(--bind "$folder")
}
