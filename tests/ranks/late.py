"""Rank 1 is late for every all-reduce; then rank 0, which writes the timeline, is killed. late.py SECONDS TIMES"""

import os
import signal
import sys
import time

import horovod.tensorflow as hvd
import tensorflow as tf

late, times = float(sys.argv[1]), int(sys.argv[2])
hvd.init()
gradients = [tf.ones([256, 256]), tf.ones([64])]
for _ in range(times):
    time.sleep(late * hvd.rank())
    hvd.grouped_allreduce(gradients)
# Wait until the thread of rank 0 that writes the timeline has finished.
time.sleep(0.5)
if hvd.rank() == 0:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(5)
