#!/usr/bin/env bash
# Runs a program in a Debian 13 that is made with debootstrap (300 MB) where it is not there yet. Needs root.
#
#   debian13.sh ROOT REPOSITORY CACHE PROGRAM [ARGUMENT ...]
#
# ROOT is the folder of that Debian. REPOSITORY and CACHE are seen in it at their own places.
set -euo pipefail
root=$1 repository=$2 cache=$3
shift 3
if [ ! -e "$root/.complete" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo 'error: Debian 13 is made with debootstrap, as root: apt-get install debootstrap' >&2
    exit 1
  fi
  mkdir -p "$root"
  debootstrap --variant=minbase --include=g++,make,python3-venv,ca-certificates trixie "$root" \
    "$("$repository/containers/mirror.sh")"
  touch "$root/.complete"
fi
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
# Gloo crashes on a machine that does not know its own name.
cp -L /etc/hosts "$root/etc/hosts"
# A site's own certificates, for pip.
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs"; fi
mkdir -p "$root$repository" "$root$cache"
# In a mount namespace of its own: the mounts end with the program.
# shellcheck disable=SC2016 # the inner shell expands these
exec unshare --mount sh -c '
  root=$1 repository=$2 cache=$3
  shift 3
  mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" &&
    mount --bind "$repository" "$root$repository" && mount --bind "$cache" "$root$cache" &&
    exec chroot "$root" env --chdir="$repository" "$@"' sh "$root" "$repository" "$cache" "$@"
