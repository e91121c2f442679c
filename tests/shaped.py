"""Hosts with a network between them, all on this machine: how does training run if the network limits it?

    python tests/shaped.py --hosts 2 --rate 1gbit --delay 1ms -- horovodrun -np 2 hpc-train bench allreduce

Each host is a network namespace with a name (shaped1, shaped2, ...), an address and a share of the machine's cores. The
links between hosts have the given rate and delay (`shaped_relay.py`, which also takes part of a core). The command runs
on the first host. There, `horovodrun` starts one rank on each host, and `ssh NAME` reaches the others. Everything ends
with the command. Namespaces and TUN devices need root. If unprivileged user namespaces are allowed,
`unshare --user --map-root-user python tests/shaped.py ...` works, too. Only the standard library is used.
"""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import shaped_relay

PROGRAMS = ("ip", "unshare", "nsenter", "mount", "taskset")
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NETWORK = "10.77.0."
_UNITS = {"kbit": 125.0, "mbit": 125e3, "gbit": 125e6, "us": 1e-6, "ms": 1e-3, "s": 1.0}
# The settings of an administrator of such hosts. A slow start after each pause is meant for the Internet.
_TCP = {"tcp_congestion_control": "cubic", "tcp_slow_start_after_idle": "0"}
# UCX, which MPICH and others use, would notice that the hosts are one machine.
_NO_SHARED_MEMORY = {"UCX_TLS": "tcp,self"}
_SSH = """#!/bin/sh
# `ssh [OPTIONS] HOST [OPTIONS] COMMAND...` to another host of tests/shaped.py.
host=
while :; do
  case $1 in
    -[oplibcEFJ]) shift 2 ;;
    -*) shift ;;
    *) [ -z "$host" ] || break; host=$1; shift ;;
  esac
done
read -r process cores < "{folder}/$host" || {{ echo "ssh: no host $host here" >&2; exit 255; }}
exec nsenter -t "$process" --net --uts --mount taskset -c "$cores" /bin/sh -c "$*"
"""
_HOROVODRUN = """#!/bin/sh
# horovodrun over the hosts of tests/shaped.py, with one rank on each.
exec {real} -H {hosts} --network-interface {device} "$@"
"""


def missing() -> str:
    """Why such a network cannot be made here; empty if it can."""
    absent = [program for program in PROGRAMS if not shutil.which(program, path=PATH)]
    if absent:
        return f"no {', '.join(absent)} here; install them (Debian: iproute2 util-linux mount)"
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun here: this kernel, or this container, has no TUN devices"
    tried = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "ip", "tuntap", "add", "shaped0", "mode", "tun"],
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
    )
    reason = tried.stderr.strip().splitlines()[-1:] or [f"status {tried.returncode}"]
    return f"namespaces and TUN devices need root here: {reason[0]}" if tried.returncode else ""


class Network:
    """Hosts and the links between them: a context, which ends all processes on them at its end.

    Args:
        hosts: how many, 2 to 250.
        rate: bytes/s of each host's link, in each direction.
        delay: s from one host to another, one way.
    """

    def __init__(self, hosts: int, rate: float, delay: float):
        self.names = [f"shaped{number}" for number in range(1, hosts + 1)]
        self.rate, self.delay = rate, delay
        self._started: list[subprocess.Popen] = []

    def __enter__(self) -> "Network":
        self._temporary = tempfile.TemporaryDirectory(prefix="shaped-")
        self.folder = Path(self._temporary.name)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(20):
                if not (alive := self._ours()):
                    break
                for process in alive:
                    _kill(process, ending)
                time.sleep(0.1)
        for process in reversed(self._started):
            process.stdin.close()
            process.wait()
        self._temporary.cleanup()

    def start(self, *command: str, env: dict[str, str] | None = None, **kwargs) -> subprocess.Popen:
        """Start a command on the first host; env: its variables besides those of this process."""
        found = {**_NO_SHARED_MEMORY, **os.environ, **(env or {}), "PATH": f"{self.folder}/bin{os.pathsep}{PATH}"}
        return subprocess.Popen([*self._on(0), *command], env=found, **kwargs)

    def _start(self) -> None:
        cores, hosts = sorted(os.sched_getaffinity(0)), len(self.names)
        known = [f"{NETWORK}{number} {name}\n" for number, name in enumerate(self.names, 1)]
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(known))
        devices = []
        for number, name in enumerate(self.names, 1):
            devices.append(self._host(number, name))
            share = cores[(number - 1) * len(cores) // hosts : number * len(cores) // hosts]
            if hosts > len(cores):
                share = [cores[number % len(cores)]]
            (self.folder / name).write_text(f"{self._started[-1].pid} {','.join(map(str, share))}\n")
        relay = [sys.executable, shaped_relay.__file__, str(self.rate), str(self.delay), *map(str, devices)]
        self._started.append(subprocess.Popen(relay, stdin=subprocess.PIPE, pass_fds=devices, start_new_session=True))
        for device in devices:
            os.close(device)
        (self.folder / "bin").mkdir()
        self._program("ssh", _SSH.format(folder=self.folder))
        if horovodrun := shutil.which("horovodrun", path=PATH):
            slots = ",".join(f"{name}:1" for name in self.names)
            text = _HOROVODRUN.format(real=shlex.quote(horovodrun), hosts=slots, device=shaped_relay.DEVICE)
            self._program("horovodrun", text)

    def _host(self, number: int, name: str) -> int:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            host = ["unshare", "--net", "--uts", "--mount", sys.executable, __file__, "--be", name]
            command = [*host, f"{NETWORK}{number}", str(self.folder / "hosts"), str(theirs.fileno())]
            # In a new session: Ctrl-C goes to the command, and when it ends, the rest ends.
            self._started.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, "PATH": PATH},
                    stdin=subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            )
            theirs.close()
            _, files, _, _ = socket.recv_fds(ours, 1, 1)
        if not files:
            raise RuntimeError(f"host {name} could not be made; its output is above")
        return files[0]

    def _program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def _on(self, host: int) -> list[str]:
        process, cores = (self.folder / self.names[host]).read_text().split()
        there = ["nsenter", "-t", process, "--net", "--uts", "--mount", f"--wd={os.getcwd()}"]
        return [*there, "taskset", "-c", cores]

    def _ours(self) -> list[int]:
        """All processes on the hosts, except those that keep the hosts alive."""
        holders = [process.pid for process in self._started if process.poll() is None]
        mine = os.stat("/proc/self/ns/net").st_ino
        spaces = {_space(holder) for holder in holders} - {mine, None}
        found = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return [process for process in found if process not in holders and _space(process) in spaces]


def be_host(name: str, address: str, hosts: str, channel: int) -> None:
    """Set up a host from within, send its device to the network, and keep the host alive until standard input ends."""
    socket.sethostname(name)
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    # Libraries look for network devices here. Without this mount they would see those of the machine.
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    device = shaped_relay.open_device()
    for line in (
        "link set lo up",
        f"addr add {address}/24 dev {shaped_relay.DEVICE}",
        f"link set {shaped_relay.DEVICE} mtu 1500 up",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    for setting, value in _TCP.items():
        # If the kernel does not have the setting, its default is good enough.
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv4", setting).write_text(value)
    with socket.socket(fileno=channel) as to:
        socket.send_fds(to, [b"1"], [device])
    os.close(device)
    sys.stdin.read()


def _space(process: int) -> int | None:
    try:
        return os.stat(f"/proc/{process}/ns/net").st_ino
    except OSError:
        return None


def _kill(process: int, ending: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, ending)


def quantity(text: str) -> float:
    """Read a rate in bytes/s or a time in s, in the form of `tc`: 100mbit, 1gbit, 50us, 1ms."""
    found = re.fullmatch(r"([\d.]+)([a-z]+)", text)
    if not found or found[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text}: write it as 100mbit, 1gbit, 50us or 1ms")
    return float(found[1]) * _UNITS[found[2]]


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["--be"]:
        return be_host(*sys.argv[2:5], int(sys.argv[5]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2, help="number of hosts (2)")
    parser.add_argument("--rate", type=quantity, default="1gbit", help="rate of each host's link, each way (1gbit)")
    parser.add_argument("--delay", type=quantity, default="1ms", help="delay from a host to another, one way (1ms)")
    parser.add_argument("command", nargs="+", help="command to run on the first host")
    chosen = parser.parse_args()
    if missing():
        sys.exit(f"error: {missing()}")
    if not 2 <= chosen.hosts <= 250:
        sys.exit(f"error: --hosts is {chosen.hosts}; it must be from 2 to 250")
    if chosen.hosts > len(os.sched_getaffinity(0)):
        print("note: there are more hosts than cores, so they slow each other down", file=sys.stderr)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    with Network(chosen.hosts, chosen.rate, chosen.delay) as network:
        running = network.start(*chosen.command)
        try:
            status = running.wait()
        except KeyboardInterrupt:
            # The command has got Ctrl-C as well, and may still print something.
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(5)
            status = 130
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
