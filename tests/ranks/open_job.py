"""A rank that a stranger may try to end: says which sockets its children get, and sums until a file appears.

Arguments: the file; where to write what was seen.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from hpc_train import parallel

# Sockets among the descriptors of a program that is started with whatever is open.
SOCKETS = "import os, stat; print([n for n in range(3, 999) if os.path.exists(f'/proc/self/fd/{n}') and "
SOCKETS += "stat.S_ISSOCK(os.fstat(n).st_mode)])"

world = parallel.init()
import horovod.tensorflow as hvd  # noqa: E402
import tensorflow as tf  # noqa: E402

end, told = map(Path, sys.argv[1:3])
children = subprocess.run([sys.executable, "-c", SOCKETS], close_fds=False, capture_output=True, text=True)
sums = 0
if world.is_root:
    told.with_suffix(".part").write_text(json.dumps([os.getpid(), children.stdout]))
    told.with_suffix(".part").rename(told)
while not hvd.allreduce(tf.constant(float(end.exists())), name="end"):
    time.sleep(0.05)
    sums += 1
print(f"rank {world.rank} ends well", flush=True)
