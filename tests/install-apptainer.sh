#!/bin/bash
# Apptainer for the tests on Debian 12, which has none: that of Debian's sid, with the libraries it needs beside it, in a
# folder of its own; nothing else of the system changes but for tools from bookworm itself. As root:
#
#   tests/install-apptainer.sh PREFIX       then PREFIX/bin on PATH, and the variables of PREFIX/environment
set -euo pipefail
prefix=$(realpath -m "${1:?where to}")
[ ! -e "$prefix" ] || [ -f "$prefix/environment" ] || { echo "error: $prefix is there, and not of this script" >&2; exit 1; }
tools=(debootstrap fuse-overlayfs fuse2fs patchelf squashfs-tools squashfuse uidmap)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export DEBIAN_FRONTEND=noninteractive
apt-get install -qq -y --no-install-recommends "${tools[@]}" >/dev/null

# sid's packages, from this machine's mirror; apt's own lists stay as they are.
mirror=$("$(dirname "$0")/../containers/mirror.sh")
mkdir -p "$work/lists/partial" "$work/root"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$work/sid.list"
sid() {
  apt-get -qq -o Dir::Etc::SourceList="$work/sid.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$work/lists" \
    -o Dir::Cache::PkgCache= -o Dir::Cache::SrcPkgCache= -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}
sid update
(cd "$work" && sid download apptainer libc6 libseccomp2 libsqlite3-0)
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done

rm -rf "$prefix"
mkdir -p "$prefix"
mv "$work"/root/usr/* "$work/root/etc" "$work/root/var" "$prefix"
libraries=$prefix/lib/$(uname -m)-linux-gnu
# The program looks for etc and var in the prefix, its starter in the prefix's lib.
ln -s ../etc ../var "$prefix/lib"
for program in "$prefix/bin/apptainer" "$libraries/apptainer/bin/starter"; do
  patchelf --set-interpreter "$libraries"/ld-linux-*.so.* --force-rpath --set-rpath "$libraries" "$program"
done

# Where root lacks a capability (in some virtual machines), Apptainer must not ask the kernel for it.
python3 - "$prefix" <<'P'
import json, re, sys
from pathlib import Path

prefix = Path(sys.argv[1])
names = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override "
    "mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
names = [f"CAP_{name.upper()}" for name in names.split()]  # in the kernel's order
permitted = int(re.search(r"CapPrm:\s*(\w+)", Path("/proc/self/status").read_text())[1], 16)
lacking = [name for bit, name in enumerate(names) if not permitted >> bit & 1]
told = ""
if lacking:
    settings = prefix / "etc/apptainer"
    allowed = {"users": {"root": [name for name in names if name not in lacking]}}
    (settings / "capability.json").write_text(json.dumps(allowed))
    text = (settings / "apptainer.conf").read_text()
    text = re.sub(r"(?m)^root default capabilities = .*$", "root default capabilities = file", text)
    (settings / "apptainer.conf").write_text(text)
    told = f"APPTAINER_DROP_CAPS={','.join(lacking)}\n"
(prefix / "environment").write_text(told)
P
PATH=$prefix/bin:$PATH apptainer --version
