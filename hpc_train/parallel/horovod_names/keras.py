"""Every name of `horovod.tensorflow.keras` and `horovod.keras`; what is not here is Horovod's own."""

from contextlib import nullcontext
from pathlib import Path

import h5py
import horovod.tensorflow as hvd
import keras
import tensorflow as tf
from keras.src.saving.serialization_lib import in_safe_mode

from hpc_train.errors import UserError
from hpc_train.files.keras_file import checked
from hpc_train.parallel import failure
from hpc_train.parallel.horovod_names import callbacks, elastic, removed
from hpc_train.parallel.horovod_names.optimizer import DistributedOptimizer, PartialDistributedOptimizer
from hpc_train.parallel.horovod_names.words import teach
from hpc_train.parallel.launcher import detect

__all__ = ["DistributedOptimizer", "PartialDistributedOptimizer", "callbacks", "elastic"]

teach()
removed.explain_errors()
failure.install_early(detect().rank)


def __getattr__(name):
    return getattr(hvd, name)


def allreduce(
    value,
    name=None,
    average=None,
    prescale_factor=1.0,
    postscale_factor=1.0,
    op=None,
    compression=hvd.Compression.none,
):
    """The mean over the ranks of anything that makes a tensor, or with `op` its sum, minimum, maximum or product."""
    return hvd.allreduce(
        tf.convert_to_tensor(value),
        average=average,
        name=name,
        op=op,
        compression=compression,
        prescale_factor=prescale_factor,
        postscale_factor=postscale_factor,
    )


def allgather(value, name=None):
    """The tensors of all ranks, one after the other along the first axis."""
    return hvd.allgather(tf.convert_to_tensor(value), name=name)


def broadcast(value, root_rank=0, name=None):
    """The root's value, on every rank."""
    return hvd.broadcast(tf.convert_to_tensor(value), root_rank, name=name)


def reducescatter(value, name=None, op=hvd.Average):
    """The mean or sum over the ranks, of which each rank gets its share of the first axis."""
    return hvd.reducescatter(tf.convert_to_tensor(value), name=name, op=op)


def broadcast_global_variables(root_rank):
    """Broadcast the global variables of a TensorFlow 1 graph.

    Raises:
        UserError: TensorFlow 2 keeps no list of all variables.
    """
    if tf.executing_eagerly():
        raise UserError(
            "hvd.broadcast_global_variables: TensorFlow 2 keeps no list of all variables; give fit "
            "hvd.callbacks.BroadcastGlobalVariablesCallback(0), or call hvd.broadcast_variables(model.variables, 0)"
        ).agreed()
    return hvd.broadcast_global_variables(root_rank)


def load_model(
    filepath, custom_optimizers=None, custom_objects=None, compression=hvd.Compression.none, legacy_opts=False
):
    """Load a Keras model, and let its optimizer, with the state that was saved, average gradients over the ranks.

    Args:
        filepath: of a .keras or .h5 file.
        custom_optimizers: optimizer classes of one's own.
        custom_objects: other objects of one's own, by name.
        compression: see `DistributedOptimizer`.
        legacy_opts: must be False: Keras 3 has no legacy optimizers.

    Returns:
        The model, compiled if the file was.

    Raises:
        UserError: the file is damaged, claims more than it can hold, or its model is made of code or of other files.
    """
    if legacy_opts:
        raise UserError("hvd.load_model(legacy_opts=True): Keras 3 has no legacy optimizers: leave it out").agreed()
    objects = {kind.__name__: kind for kind in custom_optimizers or ()} | dict(custom_objects or {})
    path = Path(str(filepath))
    # Keras refuses what is no such file; a script that has enabled unsafe files trusts them.
    check = path.suffix in (".keras", ".h5", ".hdf5") and path.is_file() and in_safe_mode() is not False
    with checked(path, objects, compiled=True) if check else nullcontext():
        model = keras.models.load_model(filepath, custom_objects=objects)
    if getattr(model, "optimizer", None) is not None:
        if h5py.is_hdf5(filepath):
            _restore(model, filepath)
        DistributedOptimizer(model.optimizer, compression=compression)
    return model


def _restore(model, filepath) -> None:
    """Give the model its optimizer with the state in an .h5 file, of which Keras 3 loads the first numbers only."""
    with h5py.File(filepath, "r", locking=False) as file:
        group = file.get("optimizer_weights", {})
        values = [group[name][()] for name in group.attrs["weight_names"]] if group else []
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    optimizer.build(model.trainable_variables)
    if not values or len(values) != len(optimizer.variables):
        raise UserError(
            f"{filepath} holds {len(values)} variables of the optimizer, but {type(optimizer).__name__} has "
            f"{len(optimizer.variables)}: save the model with its optimizer, or load it by keras.models.load_model and "
            "compile it anew"
        ).agreed()
    for variable, value in zip(optimizer.variables, values, strict=True):
        variable.assign(value)
    model.optimizer = optimizer
