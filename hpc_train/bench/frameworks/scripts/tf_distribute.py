"""One rank of MultiWorkerMirroredStrategy: tf_distribute.py FOLDER RANK, with TF_CONFIG in the environment.

`Model.fit` does not work under it (see `hpc_train.bench.frameworks`): this is the loop that does.
"""

import time
import zlib
from pathlib import Path

import keras
import tensorflow as tf
from rounds import Job

from hpc_train.parallel.cuda import list_gpus
from hpc_train.trainers import TRAINERS


def main():
    job = Job()
    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    tf.config.threading.set_inter_op_parallelism_threads(job.threads)
    gpus = list_gpus()
    if gpus:
        tf.config.set_visible_devices(gpus[job.rank], "GPU")
        tf.config.experimental.set_memory_growth(gpus[job.rank], True)
    how = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=how.NCCL if gpus else how.RING)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    with strategy.scope():
        averaged = Way(job, strategy)
    ways = {"fit": averaged, "fit alone": Way(job, None)}
    gathered = gather(job, strategy)
    seconds = job.measure(ways, lambda: gathered(0))
    check_replicas(averaged.network, gathered)
    gpu = tf.config.experimental.get_device_details(gpus[job.rank]).get("device_name", "GPU") if gpus else None
    gpu_bytes = tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else None
    job.write(seconds, {"tensorflow": tf.__version__, "keras": keras.__version__}, gpu, gpu_bytes)


class Way:
    """A training loop over the suite's network.

    Args:
        job: of this rank.
        strategy: averages the gradients, or None. With a strategy, make the loop in its scope.
    """

    def __init__(self, job, strategy):
        module = TRAINERS[job.trainer].module
        chosen = module.Options(data=Path(job.data), model=job.model)
        self.job, self.shares = job, job.shares()
        catalogue, task = chosen.catalogue("train"), module.task(chosen)
        self.network = task.model(catalogue)
        loss_of = task.compiled_with(chosen, catalogue)["loss"]
        trained = sum(int(tf.size(variable.value)) for variable in self.network.trainable_variables)
        job.check(self.network.count_params(), trained)
        if job.optimizer == "adam":
            optimizer = keras.optimizers.Adam(job.rate)
        else:
            optimizer = keras.optimizers.SGD(job.rate, job.momentum, job.nesterov)
        optimizer.build(self.network.trainable_variables)
        # Keras's optimizer sums the gradients of its replicas.
        replicas = strategy.num_replicas_in_sync if strategy else 1

        def step(inputs, targets):
            with tf.GradientTape() as tape:
                logits = self.network(inputs, training=True)
                loss = loss_of(targets, logits)
            variables = self.network.trainable_variables
            grads = tape.gradient(loss, [variable.value for variable in variables])
            grads = [self.decayed(grad, variable) / replicas for grad, variable in zip(grads, variables, strict=True)]
            optimizer.apply(grads, variables)
            return loss, tf.math.count_nonzero(tf.argmax(logits, -1) == targets)

        self.step = tf.function((lambda *batch: strategy.run(step, batch)) if strategy else step)

    def decayed(self, grad, variable):
        """The gradient with L2, which only kernels have."""
        return grad + self.job.weight_decay * variable.value if len(variable.shape) > 1 else grad

    def __call__(self, steps):
        ends = [time.perf_counter()]
        for _ in range(steps):
            chosen = next(self.shares)
            loss, _ = self.step(tf.constant(self.job.inputs[chosen]), tf.constant(self.job.targets[chosen]))
            # As in `fit`, a step ends when its loss has arrived.
            float(loss)
            ends.append(time.perf_counter())
        return ends


def gather(job, strategy):
    """A function that takes a number of this rank and returns those of all, float64 (ranks,). Collective."""
    mine = tf.one_hot(job.rank, job.ranks, dtype=tf.float64)

    def add(value):
        # all_reduce refuses a value from outside, which is on no device.
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

    added = tf.function(lambda value: strategy.run(add, (value,)))
    return lambda number: added(number * mine).numpy()


def check_replicas(network, gathered):
    """End with an error if a trained weight is not the same, bit by bit, on all ranks."""
    for variable in network.trainable_variables:
        if len(set(gathered(zlib.crc32(variable.numpy().tobytes())).tolist())) > 1:
            raise SystemExit(f"error: the replicas differ in {variable.path}")


if __name__ == "__main__":
    main()
