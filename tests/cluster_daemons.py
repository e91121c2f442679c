"""The daemons of a test cluster and their supervisor, a process that starts all of them and ends all of them.

`cluster.Cluster` starts it, in a folder of the cluster: `python cluster_daemons.py FOLDER SHAPE [--stay]`. SHAPE is the
JSON of a `cluster.Shape`. It prints one line, `ready` or an error, then waits for the end of its standard input (with
--stay: for SIGTERM), kills all its descendants and removes the folder. So nothing is left after a test session, however
that ends.
"""

import contextlib
import ctypes
import getpass
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits until its credential has expired: 121 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
# PMIx has a folder a job there, which nodes that are one machine would share.
TmpFS={folder}/tmp.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
MailProg=/bin/true
# No cgroups and no database are needed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
# Nodes may be larger than the machine.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MpiDefault={mpi}
ReturnToService=2
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,sched_interval=2,bf_interval=2
KillWait=30
InactiveLimit=0
# Ended jobs stay for `scontrol show job`.
MinJobAge=86400
# MPICH names its shared memory by the job's number, and ranks that were killed leave theirs in /dev/shm.
FirstJobId={first_job}
# A job that no partition can hold is refused, not queued for ever.
EnforcePartLimits=ALL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=batch Nodes=ALL Default=YES DefaultTime=5 MaxTime=INFINITE PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes=ALL DefaultTime=5 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""

# Seconds between the SIGTERM of a pre-emption and the end.
GRACE = 10


def free_ports(count: int) -> list[int]:
    """Free TCP ports, below those that the kernel uses for outgoing connections."""
    ports = []
    while len(ports) < count:
        port = random.randrange(12000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            ports += [port] if port not in ports else []
    return ports


def own_hostnames() -> bool:
    """Whether each node can have its own host name: this needs namespaces, and these need privileges."""
    command = ["unshare", "--uts", "--mount", "hostname", "probe"]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False


def write_configuration(folder: Path, shape: dict, own_names: bool) -> None:
    """Write slurm.conf, gres.conf, the hosts file of the nodes, and munge's key."""
    port, *node_ports = free_ports(1 + shape["nodes"])
    facts = {"host": socket.gethostname(), "port": port, "user": getpass.getuser(), "folder": folder, "grace": GRACE}
    facts["mpi"] = shape["mpi_default"]
    lines = [SLURM_CONF.format(first_job=random.randrange(10**5, 10**7), **facts)]
    if shape["job_submit"]:
        (folder / "job_submit.lua").write_text(shape["job_submit"])
        lines.append("JobSubmitPlugins=lua\n")
    lines += [f"{line}\n" for line in shape["conf"]]
    kind = f"{shape['gpu_type']}:" if shape["gpu_type"] else ""
    devices = ["AutoDetect=off\n"]
    hosts = [Path("/etc/hosts").read_text()]
    for number, node_port in enumerate(node_ports, 1):
        name, address = (f"node{number}", f"127.0.1.{number}") if own_names else (socket.gethostname(), "127.0.0.1")
        hosts.append(f"127.0.1.{number} node{number}\n")
        lines.append(
            f"NodeName=node{number} NodeHostname={name} NodeAddr={address} Port={node_port} CPUs={shape['cpus']} "
            f"RealMemory=256000 Gres=gpu:{kind}{shape['gpus'][number - 1]} Features={shape['features']}\n"
        )
        last = shape["gpus"][number - 1] - 1
        typed = f"Type={shape['gpu_type']} " if kind else ""
        devices.append(f"NodeName=node{number} Name=gpu {typed}File={folder}/nvidia[0-{last}]\n")
        for place in ("spool", "tmp"):
            (folder / f"{place}.node{number}").mkdir()
    (folder / "slurm.conf").write_text("".join(lines))
    (folder / "hosts").write_text("\n".join(hosts))
    (folder / "state").mkdir()
    # Slurm needs device files, and accepts any: /dev/null is one.
    for gpu in range(max(shape["gpus"])):
        (folder / f"nvidia{gpu}").symlink_to("/dev/null")
    (folder / "gres.conf").write_text("".join(devices))
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))


def start_daemons(folder: Path, nodes: int, own_names: bool) -> None:
    """Start munged, slurmctld and one slurmd for each node, as children of this process.

    Raises:
        RuntimeError: a daemon ends, or the nodes are not ready in time.
    """
    munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
    munged += [f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed"]
    daemons = [_daemon(folder, "munged", *munged)]
    _until(folder, daemons, lambda: (folder / "munge.socket").exists())
    configuration = str(folder / "slurm.conf")
    daemons.append(_daemon(folder, "slurmctld", "slurmctld", "-D", "-f", configuration))
    for number in range(1, nodes + 1):
        slurmd = ["slurmd", "-D", "-f", configuration, "-N", f"node{number}"]
        if own_names:
            inside = 'hostname "$1" && mount --bind "$2/hosts" /etc/hosts && shift 2 && exec "$@"'
            slurmd = ["unshare", "--uts", "--mount", "sh", "-c", inside, "sh", f"node{number}", str(folder), *slurmd]
        daemons.append(_daemon(folder, f"slurmd.node{number}", *slurmd))
    _until(folder, daemons, lambda: _idle() == nodes)


def _daemon(folder: Path, name: str, *command: str) -> tuple[str, subprocess.Popen]:
    with open(folder / f"{name}.out", "w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    return name, process


def _until(folder: Path, daemons: list[tuple[str, subprocess.Popen]], ready, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        ended = [name for name, process in daemons if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            output = "\n".join(f"{path.name}: {path.read_text()[-1000:]}" for path in sorted(folder.glob("*.out")))
            problem = f"{ended[0]} ended" if ended else f"the nodes are not idle after {timeout:.0f} s"
            raise RuntimeError(f"{problem}\n{output}")
        time.sleep(0.05)


def _idle() -> int:
    nodes = subprocess.run(
        ["sinfo", "-h", "-N", "-p", "batch", "-t", "idle", "-o", "%N"], capture_output=True, text=True
    )
    return len(nodes.stdout.split())


def descendants(root: int) -> list[int]:
    """Numbers of all processes that descend from the process `root`."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything; the state and the parent come after it.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def reap() -> None:
    """Remove children that have ended from the process table, also adopted ones."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main(folder: Path, shape: dict, stay: bool) -> None:
    """Supervise a cluster until its end."""
    # Steps may outlive their slurmd, and daemons' children their parents: this process adopts them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        own_names = own_hostnames()
        write_configuration(folder, shape, own_names)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        try:
            start_daemons(folder, shape["nodes"], own_names)
        except (RuntimeError, OSError) as error:
            print(f"the test cluster did not start: {error}", flush=True)
            return
        print("ready", flush=True)
        while stay or not select.select([sys.stdin], [], [], 0.1)[0]:
            reap()
            time.sleep(0.1 if stay else 0)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while left := descendants(os.getpid()):
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            reap()
            time.sleep(0.02)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), stay="--stay" in sys.argv)
