#!/usr/bin/env bash
# Runs a program in a Debian 13 that is made with debootstrap (1.1 GB, two minutes) where it is not there yet: Slurm
# 24.11, Python 3.13, GCC 14, Open MPI 5 with PMIx. Needs root.
#
#   debian13.sh ROOT REPOSITORY CACHE PROGRAM [ARGUMENT ...]
#
# ROOT is the folder of that Debian. REPOSITORY and CACHE are seen in it at their own places.
set -euo pipefail
root=$1 repository=$2 cache=$3
shift 3
packages='g++ make python3-venv slurm-wlm slurm-client munge openmpi-bin'
if [ ! -e "$root/.complete" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo 'error: Debian 13 is made with debootstrap, as root: apt-get install debootstrap' >&2
    exit 1
  fi
  mkdir -p "$root"
  debootstrap --variant=minbase --include=ca-certificates trixie "$root" "$("$repository/containers/mirror.sh")"
  touch "$root/.complete"
fi
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
# Gloo crashes on a machine that does not know its own name.
cp -L /etc/hosts "$root/etc/hosts"
# A site's own certificates, for pip.
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs"; fi
if [ "$(cat "$root/.complete")" != "$packages" ]; then
  # No daemon shall start here: invoke-rc.d asks this file.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" && chmod +x "$root/usr/sbin/policy-rc.d"
  # shellcheck disable=SC2086 # one word for each package
  DEBIAN_FRONTEND=noninteractive chroot "$root" sh -c \
    'apt-get update -qq && exec apt-get install -qq -y --no-install-recommends "$@" >/dev/null' sh $packages
  echo "$packages" >"$root/.complete"
fi
mkdir -p "$root$repository" "$root$cache"
# In a mount namespace of its own: the mounts end with the program. Its / is a mount, too, as namespaces inside want it.
# shellcheck disable=SC2016 # the inner shell expands these
exec unshare --mount sh -c '
  root=$1 repository=$2 cache=$3
  shift 3
  mount --bind "$root" "$root" && mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" &&
    mount --rbind /sys "$root/sys" && mount --bind "$repository" "$root$repository" &&
    mount --bind "$cache" "$root$cache" &&
    exec chroot "$root" env --chdir="$repository" "$@"' sh "$root" "$repository" "$cache" "$@"
