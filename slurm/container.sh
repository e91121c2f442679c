# shellcheck shell=bash
# The container that the ranks run in, and which folders of the node it shows; for common.sh.

use_container() { # sets container: the words before the ranks' command; arguments: those of that command
  local runtime words word path output
  # shellcheck disable=SC2153 # a setting of the user
  [ -e "$CONTAINER" ] || fail "no container image $CONTAINER: correct CONTAINER, or unset it to use VENV"
  runtime=$(command -v apptainer || command -v singularity) ||
    fail "CONTAINER is set, but there is no apptainer here: load it with MODULES"
  container=("$runtime" exec)
  [ "${SLURM_GPUS_ON_NODE:-${gpus[0]:-0}}" = 0 ] || container+=(--nv)
  # By default it shows $HOME, /tmp and the working folder; data, runs and node-local disks may be elsewhere.
  for word in "$HPC_TRAIN" "${NODE_LOCAL-${TMPDIR:-}}" "$@"; do
    [[ $word != --*=* ]] || word=${word#--*=}
    word=$(look_up "$word")
    # Of a pattern, its folder. A word without slashes names nothing in another folder, unless it is a link.
    path=${word%%[*?[]*}
    [[ $word = -* ]] || [[ $path != */* && ! -L $path ]] || show "$(realpath -ms "$path")"
  done
  read -ra words <<<"${CONTAINER_OPTIONS:-}"
  container+=("${words[@]}" "$CONTAINER")
  output=$("${container[@]}" true 2>&1) || [ -n "${heard:-}" ] || fail "a container of $CONTAINER does not start:" \
    "$(sed -n 's/^FATAL: *//p' <<<"$output" | grep . || tail -n 1 <<<"$output")"
}

look_up() { # a path, with its variables expanded on this node
  local left=$1 found=''
  while [[ $left =~ ^([^$]*)(\$\{?([A-Za-z_][A-Za-z_0-9]*)\}?)(.*)$ ]]; do
    found+=${BASH_REMATCH[1]}${!BASH_REMATCH[3]-${BASH_REMATCH[2]}}
    left=${BASH_REMATCH[4]}
  done
  echo "$found$left"
}

show() { # adds to container: an absolute path, or its nearest existing folder; and the path that links in it lead to
  local path=$1 folder link='' to
  until [ -e "$path" ]; do path=$(dirname "$path"); done
  if [ -d "$path" ]; then bind "$path"; else bind "$(dirname "$path")"; fi
  # Inside, a link works only if the folder that it leads to is shown, too.
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

bind() { # adds to container: a folder, unless the image has its own
  local folder=$1
  case $folder in
    / | /bin | /dev | /etc | /lib | /lib32 | /lib64 | /opt | /proc | /sbin | /sys | /usr | /var) return 0 ;;
    /opt/hpc-train | /opt/hpc-train/*) fail "$folder would hide the image's own folder: move it to another place" ;;
  esac
  folder=${folder//,/\\,}
  folder=${folder//:/\\:}
  [[ " ${container[*]} " = *" $folder "* ]] || container+=(--bind "$folder")
}
