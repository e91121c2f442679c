"""The same networks on other frameworks: what stands beside ours in a study.

pytorch-ddp    PyTorch's DistributedDataParallel, over Gloo, or NCCL where there are GPUs. Needs a Python with torch,
               which may be another one than ours (`--peers-python`).
tf.distribute  TensorFlow's MultiWorkerMirroredStrategy with the suite's own Keras network. With Keras 3.15.1 on
               TensorFlow 2.21.0 `Model.fit` under this strategy fails before its first step (keras-team/keras issue
               20585): "ValueError: Attempt to convert a value (PerReplica:{...}) with an unsupported type (<class
               'tensorflow.python.distribute.values.PerReplica'>) to a Tensor". What works is a training loop of one's
               own around `strategy.run`: Keras's optimizer sums the gradients of all workers. That is measured.

Each is written as its users would who care about speed: samples in memory as they are stored, gathered by an index;
the same batch, threads a rank, loss, metrics, optimizer and weight decay as the suite's trainer; the same number of
parameters, which is checked at the start. Nothing is augmented. Two ways are measured, round after round in the same
processes: "fit" averages gradients, "fit alone" does not.
"""

from hpc_train.bench.frameworks.start import FRAMEWORKS, check, command

__all__ = ["FRAMEWORKS", "check", "command"]
