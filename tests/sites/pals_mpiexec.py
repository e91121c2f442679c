#!/usr/bin/env python3
"""A stand-in for PALS's mpiexec: it takes the options that ALCF's pages show, no others, and starts Hydra's mpiexec.

The ranks see the variables of PALS, and not those of Hydra. It is not PALS, which no test here has met.
"""

import argparse
import os
import shutil
import sys

SHIM = """export PALS_RANKID=$PMI_RANK PALS_LOCAL_RANKID=$MPI_LOCALRANKID PMI_LOCAL_RANK=$MPI_LOCALRANKID
unset MPI_LOCALRANKID
exec "$@"
"""


def main() -> None:
    """Start the ranks."""
    parser = argparse.ArgumentParser("mpiexec", allow_abbrev=False)
    parser.add_argument("-n", "-np", "--np", dest="n", type=int, required=True)
    parser.add_argument("-ppn", "--ppn", dest="ppn", type=int, required=True)
    parser.add_argument("-d", "--depth", dest="depth", type=int, default=1)
    parser.add_argument("--cpu-bind", choices=["none", "depth", "core"])
    parser.add_argument("-hostfile", "--hostfile", default=os.environ["PBS_NODEFILE"])
    parser.add_argument("--version", action="version", version="PALS stand-in")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    with open(given.hostfile) as file:
        hosts = dict.fromkeys(file.read().split())
    placed = ",".join(f"{host}:{given.ppn}" for host in hosts)
    print(f"PALS stand-in: {given.ppn} a node, depth {given.depth}, by {given.cpu_bind}", file=sys.stderr, flush=True)
    hydra = shutil.which("mpiexec.hydra")
    # Every node is this machine.
    os.environ["HYDRA_LAUNCHER"] = "fork"
    shim = ["bash", "-c", SHIM, "rank"]
    os.execv(hydra, [hydra, "-n", str(given.n), "-hosts", placed, *shim, *given.command])


if __name__ == "__main__":
    main()
