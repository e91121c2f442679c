#!/bin/bash
# Puts nvcc, and what it needs to compile and link Horovod's GPU kernels, into a folder (150 MB). The wheels that
# TensorFlow runs with bring CUDA's libraries, but no compiler; a whole toolkit would be 5 GB. install.sh calls it while
# an image for GPUs is built, and removes the folder; Debian 12 will do, without root (13 with CXX=g++-13).
#
#   nvcc.sh FOLDER
#
# CUDA 12.4: it compiles for V100, A100 and H100 (13 knows no V100 any more) with GCC up to 13, and what it makes runs
# with every driver that TensorFlow's own CUDA 12 libraries run with.
set -euo pipefail
if [ $# != 1 ] || [[ $1 = -* ]]; then
  echo "usage: $0 FOLDER, which is to hold bin/nvcc" >&2
  exit 2
fi
for program in apt-get dpkg ar python3; do
  command -v $program >/dev/null || { echo "error: no $program: it takes Debian with binutils and Python" >&2; exit 1; }
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f $keyring ] || { echo "error: no $keyring: it takes Debian, or its package debian-archive-keyring" >&2; exit 1; }
folder=$1
release=12.4 suite=trixie package=nvidia-cuda-toolkit
wheels=(nvidia-cuda-nvcc-cu12==12.4.131 nvidia-cuda-runtime-cu12==12.4.127 nvidia-cuda-cccl-cu12==12.4.127.post1)
# Theirs is the first wheel that has the static library; it takes what older compilers make.
static=nvidia-cuda-runtime-cu12==12.9.79

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
mkdir -p "$unpacked/lists/partial"
echo "deb [signed-by=$keyring] $("$(dirname "$0")/mirror.sh") $suite non-free" >"$unpacked/sources.list"
aside() { # apt's own lists stay as they are
  apt-get -qq -o Dir::Etc::SourceList="$unpacked/sources.list" -o Dir::Etc::SourceParts=- -o Dir::Cache="$unpacked" \
    -o Dir::State::Lists="$unpacked/lists" -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}
aside update
# The compiler alone: what the package depends on is the rest of CUDA.
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
# Every program is linked with it; only kernels that start kernels would find that it is empty.
ar rcs "$folder/lib64/libcudadevrt.a"
cat >"$folder/bin/nvcc.profile" <<'END'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64"
END
[[ $("$folder/bin/nvcc" --version) = *"release $release"* ]] ||
  { echo "error: Debian $suite no longer has CUDA $release: look for other wheels of its new version" >&2; exit 1; }
