"""Python files of Horovod that the wheel replaces or adds: its Keras names come from `hpc_train.parallel`.

The key of a build depends on every text here (`patches.digest`).
"""

# The local part says that this is not the release of 2023: pip and `hvd.__version__` show it.
LOCAL_VERSION = "keras3.1"

NEEDED = """\
try:
    import {home} as _names
except ModuleNotFoundError as error:
    if error.name != "hpc_train":
        raise
    raise ImportError("this build of Horovod needs hpc-train, which built it, in the same environment") from None
"""

MODULE = '''\
"""Horovod's names for Keras 3; hpc-train, which built this wheel, holds them."""

{needed}{more}

def __getattr__(name):
    return getattr(_names, name)


def __dir__():
    return sorted({{*globals(), *dir(_names)}})
'''


ELASTIC = '''\
"""Elastic training for Keras 3; hpc-train, which built this wheel, holds it."""

from horovod.common.elastic import ObjectState, run_fn


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
{needed}
    return getattr(_names, name)
'''


def _module(name: str, more: str = "") -> str:
    needed = NEEDED.format(home=f"hpc_train.parallel.horovod_names.{name}")
    return MODULE.format(needed=needed, more=more and f"\n{more}\n")


FROM_TENSORFLOW = '''\
"""What `horovod.tensorflow` takes from hpc-train, or does for Keras 3, whose variables hold TensorFlow's."""

import tensorflow as tf


def tf_variable(variable):
    """The TensorFlow variable of a Keras variable; anything else as it is."""
    if isinstance(variable, (tf.Variable, tf.Tensor)):
        return variable
    return variable.value if isinstance(getattr(variable, "value", None), tf.Variable) else variable


def tf_variables(variables):
    """The TensorFlow variables of a list."""
    return [tf_variable(variable) for variable in variables]


def tensor(value):
    """A tensor of numbers and of Keras variables; tensors, variables and IndexedSlices as they are."""
    value = tf_variable(value)
    return value if isinstance(value, (tf.Tensor, tf.Variable, tf.IndexedSlices)) else tf.convert_to_tensor(value)


def init(*args, **kwargs):
    """Start Horovod on this rank."""
    return _start().init(*args, **kwargs)


def same_variables(variables, process_set):
    """TensorFlow's variables of a list that must be the same on all ranks."""
    return _start().same_variables(tf_variables(variables), process_set)


def grouped(name, device_dense, device_sparse, compression, sparse_as_dense, op, predivide, groups, process_set):
    """A function that reduces gradients in groups of variables."""
    return _start().grouped(
        name,
        device_dense=device_dense,
        device_sparse=device_sparse,
        compression=compression,
        sparse_as_dense=sparse_as_dense,
        op=op,
        gradient_predivide_factor=predivide,
        groups=groups,
        process_set=process_set,
    )


def SyncBatchNormalization(*args, **kwargs):
    """A batch normalisation over the batches of all ranks."""
    _start()
    from hpc_train.parallel.horovod_names import batch_norm

    return batch_norm.SyncBatchNormalization(*args, **kwargs)


def _start():
{needed}
    return _names
'''


def files() -> dict[str, str]:
    """Each file, by its name in Horovod's source."""
    texts = {
        "horovod/hpc_train_names.py": FROM_TENSORFLOW.format(needed=_indented("start")),
        "horovod/tensorflow/elastic.py": ELASTIC.format(needed=_indented("elastic")),
    }
    for package in ("horovod/keras", "horovod/tensorflow/keras"):
        dotted = package.replace("/", ".")
        texts[f"{package}/__init__.py"] = _module("keras", f"from {dotted} import callbacks, elastic")
        texts[f"{package}/callbacks.py"] = _module("callbacks")
        texts[f"{package}/elastic.py"] = _module("elastic")
    return texts


def _indented(name: str) -> str:
    needed = NEEDED.format(home=f"hpc_train.parallel.horovod_names.{name}").rstrip()
    return "    " + needed.replace("\n", "\n    ")
