"""The same networks on other frameworks, which a study compares with ours.

pytorch-ddp    PyTorch's DistributedDataParallel, over Gloo, or over NCCL with GPUs. It needs a Python with torch, which
               need not be the suite's (`--peers-python`).
tf.distribute  TensorFlow's MultiWorkerMirroredStrategy with the suite's own Keras network, as Keras computes it (the
               suite's trainers fuse batch normalisation). With Keras 3.15.1 on TensorFlow 2.21.0 `Model.fit` under this
               strategy fails before its first step (keras-team/keras issue 20585): "ValueError: Attempt to convert a
               value (PerReplica:{...}) with an unsupported type (<class
               'tensorflow.python.distribute.values.PerReplica'>) to a Tensor". A training loop around `strategy.run`
               works: Keras's optimizer sums the gradients of all workers. This loop is measured.

Each is written as a user who cares about speed would write it: samples in memory as they are stored, gathered by an
index. Batch, threads of a rank, loss, metrics, optimizer and weight decay are those of the suite's trainer. So is the
number of parameters, which is checked at the start. Only of label maps the others count the right pixels alone, not the
IoU of each class. Nothing is augmented. Two ways are measured, round after round in the same processes: "fit" averages
gradients, "fit alone" does not.
"""

from hpc_train.bench.frameworks.start import FRAMEWORKS, check, command

__all__ = ["FRAMEWORKS", "check", "command"]
