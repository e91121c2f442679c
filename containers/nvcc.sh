#!/bin/bash
# Puts nvcc, and what it needs to compile and link Horovod's GPU kernels, into a folder (150 MB). The wheels of
# TensorFlow bring CUDA's libraries, but no compiler; a whole toolkit would take 5 GB. install.sh calls this script
# while it builds an image for GPUs, and removes the folder. It runs on Debian 12 (on 13 with CXX=g++-13), without root.
#
#   nvcc.sh FOLDER
#
# CUDA 12.4 compiles for V100, A100 and H100 (CUDA 13 no longer does for V100), with GCC up to 13. Its programs run with
# every driver that works with TensorFlow's CUDA 12 libraries.
set -euo pipefail
if [ $# != 1 ] || [[ $1 = -* ]]; then
  echo "usage: $0 FOLDER (will hold bin/nvcc)" >&2
  exit 2
fi
for program in apt-get dpkg ar python3; do
  command -v $program >/dev/null || { echo "error: no $program: needs Debian with binutils and Python" >&2; exit 1; }
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f $keyring ] || { echo "error: no $keyring: needs Debian, or its package debian-archive-keyring" >&2; exit 1; }
folder=$1
release=12.4 suite=trixie package=nvidia-cuda-toolkit
wheels=(nvidia-cuda-nvcc-cu12==12.4.131 nvidia-cuda-runtime-cu12==12.4.127 nvidia-cuda-cccl-cu12==12.4.127.post1)
# The first wheel with the static library; it works with the output of older compilers.
static=nvidia-cuda-runtime-cu12==12.9.79

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
mkdir -p "$unpacked/lists/partial"
echo "deb [signed-by=$keyring] $("$(dirname "$0")/mirror.sh") $suite non-free" >"$unpacked/sources.list"
aside() { # apt-get with lists of its own: the system's lists do not change
  apt-get -qq -o Dir::Etc::SourceList="$unpacked/sources.list" -o Dir::Etc::SourceParts=- -o Dir::Cache="$unpacked" \
    -o Dir::State::Lists="$unpacked/lists" -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}
aside update
# Only the compiler: the packages that it depends on are the rest of CUDA.
(cd "$unpacked" && aside download "$package" && dpkg -x "$package"_*.deb .)
python3 -m pip install --quiet --no-deps --target "$unpacked/wheels" "${wheels[@]}"
python3 -m pip install --quiet --no-deps --target "$unpacked/static" "$static"

mkdir -p "$folder"/{bin,include,lib64,nvvm/bin}
debian=$unpacked/usr/lib/$package
cp -r "$debian"/bin/{nvcc,crt} "$unpacked"/usr/bin/{cudafe++,fatbinary,nvlink,ptxas} "$folder/bin"
cp "$debian/bin/cicc" "$folder/nvvm/bin"
cp -r "$debian/libdevice" "$folder/nvvm"
cp -r "$unpacked"/wheels/nvidia/{cuda_nvcc,cuda_runtime,cuda_cccl}/include/. "$folder/include"
cp "$unpacked"/wheels/nvidia/cuda_runtime/lib/libcudart.so.12 "$folder/lib64/libcudart.so"
cp "$unpacked"/static/nvidia/cuda_runtime/lib/lib{cudart_static,culibos}.a "$folder/lib64"
# Every program is linked with this library. It may be empty: only kernels that start kernels need it.
ar rcs "$folder/lib64/libcudadevrt.a"
cat >"$folder/bin/nvcc.profile" <<'END'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64"
END
[[ $("$folder/bin/nvcc" --version) = *"release $release"* ]] ||
  { echo "error: Debian $suite no longer has CUDA $release: this script needs wheels of the new version" >&2; exit 1; }
