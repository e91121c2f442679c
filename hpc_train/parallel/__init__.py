"""The Keras 3 layer over Horovod: start-up, gradients, broadcast, exact metrics, equal replicas.

Five lines make a Keras 3 script a Horovod job::

    from hpc_train import parallel
    world = parallel.init()
    model.compile(parallel.DistributedOptimizer(keras.optimizers.SGD(0.01 * world.size)), loss=...)
    data = data.shard(world.size, world.rank).batch(64).repeat()
    model.fit(data, steps_per_epoch=..., callbacks=parallel.callbacks(), verbose=int(world.is_root))

Horovod and TensorFlow are imported with the first name that needs them, so `World` costs nothing.
"""

from hpc_train.faces import lazy
from hpc_train.parallel.quiet import quieten
from hpc_train.parallel.world import World

_HOME = {
    "init": "start",
    "agree": "collectives",
    "Ranks": "collectives",
    "broadcast_object": "collectives",
    "gather_objects": "collectives",
    "end_together": "failure",
    "broadcast_variables": "sync",
    "DistributedOptimizer": "optimizer",
    "callbacks": "sync",
    "AverageStatistics": "sync",
    "Broadcast": "sync",
    "EqualReplicas": "sync",
    "StopTogether": "sync",
    "ExactMetrics": "metrics",
    "evaluate": "metrics",
    "check_replicas": "replicas",
    "save_model": "saving",
    "synchronise_batch_norm": "batch_norm",
}

__all__ = ["World", *sorted(_HOME)]
__getattr__ = lazy(__name__, _HOME)
quieten()
