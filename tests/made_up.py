"""Made-up measurements of `bench throughput`. As a program, this is a stand-in for horovodrun that writes one.

    python made_up.py RANKS PROGRAM ... bench throughput TRAINER ... --output FILE

writes to FILE what RANKS ranks would have measured at 100 samples/s each. The variable STAND_IN makes it do something
else for some numbers of ranks, as in 2=killed 4=hangs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path


def node(ranks, cores=8, gpus=(), host="node1", processor="Xeon"):
    return {"host": host, "processor": processor, "cores": cores, "gpus": list(gpus), "ranks": ranks}


def measured(path, nodes, fit, alone=None, batch_size=64, threads=4, data="0123456789abcdef", model="deep", **more):
    """Write a file as the benchmark would; by default, ranks that train alone are twice as fast."""
    options = {"data": "shards/mnist", "model": model, "batch_size": batch_size, "steps": 60, "bucket_mib": 32.0}
    figures = {
        "benchmark": "throughput",
        "format": 2,
        "trainer": "mnist",
        "framework": more.pop("framework", "hpc-train"),
        "options": {**options, **more.pop("options", {})},
        "data": data,
        "model": model,
        "batch_size": batch_size,
        "ranks": sum(node["ranks"] for node in nodes),
        "threads": threads,
        "nodes": nodes,
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0"},
        "rates": {"fit": fit, "fit alone": alone or [2 * rate for rate in fit]},
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures))
    return path.name


def stand_in(ranks: str, *words: str) -> None:
    """Do in an instant what a launcher would do."""
    todo = dict(word.split("=") for word in os.environ.get("STAND_IN", "").split()).get(ranks)
    print("ranks:", ranks, "cycle time:", os.environ.get("HOROVOD_CYCLE_TIME"), flush=True)
    if todo == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if todo == "fails":
        print("out of memory, in spirit\n\n[0] I0000 00:00:1795361877.787 what TensorFlow says")
        sys.exit(3)
    if todo in ("hangs", "deaf"):
        # A rank that has left its launcher's session; a deaf one ignores SIGTERM, too.
        ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" * (todo == "deaf")
        rank = f"import signal, time; {ignore} print('up', flush=True); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", rank], start_new_session=True)
        time.sleep(600)
    given = dict(pairwise(words))  # if an option is there twice, the last one counts
    rounds = [100.0 * int(ranks)] * 3
    measured(Path(given["--output"]), [node(int(ranks))], rounds, batch_size=int(given["--batch-size"]))


if __name__ == "__main__":
    stand_in(*sys.argv[1:])
