#!/bin/bash
# Builds an image from a recipe, with this machine's mirror, certificates, proxies and package indexes:
#
#   containers/build.sh [OPTIONS] [RECIPE [IMAGE]]
#
#   RECIPE            containers/hpc-train-cpu.def (the default) or containers/hpc-train-cuda.def
#   IMAGE             file to write; by default the recipe's name with .sif, in the current folder
#   --mpi NAME        the MPI in the image: mpich (the default) or openmpi
#   --mirror URL      Debian's mirror; by default the one that this machine's apt uses, or else deb.debian.org
#   --force           replace IMAGE
#   --check           only check that everything needed is here
#
# Without root it builds with --fakeroot. It needs apptainer, debootstrap, mksquashfs, a network, 6 GB in TMPDIR (13 GB
# for the recipe with CUDA), and the source of hpc-train around this folder: a clone, or the unpacked
# hpc_train-VERSION.tar.gz.
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=containers/lend.sh
. "$project/containers/lend.sh"

usage() { sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; }
fail() { echo "error: $*" >&2; exit 1; }
wrong() { echo "error: $*; see $0 --help" >&2; exit 2; }

check_room() { # the folder $1 must have $2 GB free; $3 describes it
  local free
  if [ ! -w "$1" ]; then
    missing+=("cannot write to $1, $3")
  else
    free=$(df -Pk "$1" | awk 'NR == 2 {print int($4 / 1e6)}')
    [ "$free" -ge "$2" ] || missing+=("only $free GB free in $1, $3: it needs $2 GB")
  fi
}

check() { # names everything that is missing, not only the first thing
  local missing=() program home wanted=6 large=1
  ! grep -q ' gpu$' "$recipe" || wanted=13 large=4
  for program in debootstrap mksquashfs python3; do
    PATH=$PATH:/usr/sbin:/sbin command -v $program >/dev/null || missing+=("no $program")
  done
  if ! apptainer=$(command -v apptainer || command -v singularity); then
    missing+=("no apptainer (https://apptainer.org/docs/admin/latest/installation.html)")
  elif [[ $("$apptainer" build --help 2>&1) != *--build-arg* ]]; then
    missing+=("$("$apptainer" --version) has no --build-arg: it needs Apptainer 1.2 or SingularityCE 4, or newer")
  fi
  # A folder that `hpc-train templates` wrote has only the recipes.
  if grep -q '^ *setup\.cfg ' "$recipe" && [ ! -f "$project/setup.cfg" ]; then
    missing+=("$project has no setup.cfg: build in the source of hpc-train, a clone or hpc_train-VERSION.tar.gz")
  fi
  check_room "${TMPDIR:-/tmp}" $wanted "where it is built (set TMPDIR to another folder)"
  check_room "$(dirname "$image")" $large "where the image goes"
  # Apptainer binds the home folder that the system knows, whatever HOME says.
  home=$(getent passwd "$(id -u)" | cut -d: -f6) || true
  [ "$(id -u)" = 0 ] || [ -d "$home" ] || missing+=("no home folder '$home' on this machine: --fakeroot binds it")
  if [ "$(id -u)" != 0 ] && ! grep -qE "^($(id -un)|$(id -u)):" /etc/subuid 2>/dev/null &&
    ! command -v fakeroot >/dev/null; then
    missing+=("no root, no fakeroot, and no lines for $(id -un) in /etc/subuid and /etc/subgid: one of these is needed")
  fi
  [ ${#missing[@]} = 0 ] || fail "$(printf '%s; ' "${missing[@]}" | sed 's/; $//')"
}

tidy_up() {
  local mounted
  # An interrupted debootstrap leaves /proc mounted.
  for mounted in $(awk '{print $2}' /proc/mounts | grep -F "$temporary/" | tac); do umount "$mounted"; done
  rm -rf --one-file-system "$temporary" 2>/dev/null || echo "note: not all of $temporary could be removed" >&2
}

mpi=mpich mirror='' force='' only_check=''
words=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --mpi | --mirror) [ $# -gt 1 ] || wrong "$1 needs a value"; if [ "$1" = --mpi ]; then mpi=$2; else mirror=$2; fi; shift ;;
    --force) force=yes ;;
    --check) only_check=yes ;;
    -*) wrong "unknown option $1" ;;
    *) words+=("$1") ;;
  esac
  shift
done
[ ${#words[@]} -le 2 ] || wrong "${words[2]} is one argument too many: give a recipe and an image"
recipe=${words[0]:-$project/containers/hpc-train-cpu.def}
[ -f "$recipe" ] || wrong "no recipe $recipe"
image=${words[1]:-$(basename "$recipe" .def).sif}
case $mpi in mpich | openmpi) ;; *) wrong "--mpi $mpi: give mpich or openmpi" ;; esac
[ ! -d "$image" ] || wrong "$image is a folder: give a file in it"
[ ! -e "$image" ] || [ -n "$force" ] || [ -n "$only_check" ] || wrong "$image exists: --force replaces it"
mirror=${mirror:-$("$project/containers/mirror.sh")}
[[ $mirror != *@* ]] || wrong "the address of Debian's mirror stays in the image, but holds a password: give another" \
  "with --mirror"
check
echo "building $image from $(basename "$recipe") with $mpi, Debian from $mirror"
[ -z "$only_check" ] || exit 0

revision=$(git -C "$project" describe --always --dirty 2>/dev/null || echo unknown)
mask=$(umask)
umask 022 # for the files in the image; and apt's user must read the lent files
temporary=$(mktemp -d)
trap tidy_up EXIT
mkdir "$temporary/lent"
lend "$temporary/lent"
fakeroot=()
[ "$(id -u)" = 0 ] || fakeroot=(--fakeroot)
# Absolute names, since the build runs in the project's folder: %files in the recipe is relative to it.
recipe=$(realpath "$recipe") image=$(realpath "$image")
cd "$project"
export APPTAINER_TMPDIR=$temporary SINGULARITY_TMPDIR=$temporary
# Level 15 would take seven times as long for 6 % less. In a variable, since versions before 1.4 have no option for it;
# they compress with gzip.
export APPTAINER_MKSQUASHFS_ARGS='-comp zstd -Xcompression-level 9'
PATH=$PATH:/usr/sbin:/sbin "$apptainer" build "${fakeroot[@]}" "${binds[@]}" --build-arg "MIRROR=$mirror" \
  --build-arg "MPI=$mpi" --build-arg "REVISION=$revision" "$temporary/image.sif" "$recipe"
umask "$mask"
chmod '=rwx' "$temporary/image.sif"
# Copy, then rename, so that an unfinished image never has the final name. Both may fail: a quota may end the copy, or
# another user's file may have this name.
if ! cp "$temporary/image.sif" "$image.part" || ! mv -fT "$image.part" "$image"; then
  rm -rf "$image.part" "$temporary/lent"
  trap - EXIT
  fail "the image is built, but cannot be put into $(dirname "$image"): move it yourself from $temporary/image.sif"
fi
echo "$image: $(du --apparent-size -BMB "$image" | cut -f1), in $(((SECONDS + 59) / 60)) min"
