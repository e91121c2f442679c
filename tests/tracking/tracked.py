"""A start of a run that MLflow and W&B follow: python tracked.py RUN EPOCHS killed|stopped|finished ..."""

import os
import signal
import sys
import time
from pathlib import Path

from hpc_train.parallel.world import World
from hpc_train.tracking.follow import LIMITS, followed
from hpc_train.training.options import Options
from hpc_train.training.run_folder import Run

run, epochs, end = Run(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
secret = os.environ["PLANTED"]
data = Path(f"https://me:{secret}@example.org/x")
options = Options(data=data, inputs=(f"api_key={secret}",), epochs=epochs)
run.start(options, World(), {"trainer": "made-up", "seed": 0}, resume=True)
# The last checkpoint is one epoch old.
done = max(len(run.metrics()) - 1, 0)
run.forget_metrics_after(done)
# Longer than a busy machine needs: each start sends all that it has.
LIMITS.update(dict.fromkeys(LIMITS, 100))
hooks = sys.excepthook, sys.exit
with followed(["mlflow", "wandb"], run) as followers:
    for epoch in range(done + 1, epochs + 1):
        # More than a block of W&B's file, a value that is no number, and a name that MLflow does not take.
        many = {f"val_recall_of_a_class_with_a_long_name_{number}": 0.5 for number in range(900)}
        run.add_metrics({"epoch": epoch, "step": 21 * epoch, "loss": 1 / epoch, "val_a+b": float("nan"), **many})
        for follower in followers:
            follower.look()
    if end == "killed":
        while any(follower._store is None or follower._store.last < 21 * epochs for follower in followers):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "stopped":
        sys.exit(os.EX_TEMPFAIL)
assert (sys.excepthook, sys.exit) == hooks
