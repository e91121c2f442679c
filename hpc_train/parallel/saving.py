"""Models as plain Keras knows them: nothing of Horovod or of this package in the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from hpc_train.files import atomic_path
from hpc_train.optim.wrapper import unwrap


@contextmanager
def plain(model) -> Iterator[None]:
    """Inside the `with` block `model` is compiled with parts that plain Keras knows.

    These are the innermost optimizer of its chain, and, for losses and metrics of this package, what their `plain()`
    returns; None leaves a metric out.
    """
    wrapped = model.optimizer
    config = model.get_compile_config()
    if config:
        config = {
            **config,
            "optimizer": keras.saving.serialize_keras_object(unwrap(wrapped)),
            "loss": keras.saving.serialize_keras_object(keras.tree.map_structure(_plain, model.loss)),
            "metrics": _plain_metrics(config["metrics"]),
        }
    model.get_compile_config = lambda: config
    model.optimizer = unwrap(wrapped)
    try:
        yield
    finally:
        del model.get_compile_config
        model.optimizer = wrapped


def _plain(part):
    return part.plain() if hasattr(part, "plain") else part


def _plain_metrics(serialized):
    metrics = keras.saving.deserialize_keras_object(serialized)
    # Only a user's own model has named outputs, and so a dict of metrics: Keras's own.
    if not isinstance(metrics, list):
        return serialized
    return keras.saving.serialize_keras_object([plain for plain in map(_plain, metrics) if plain is not None])


def save_model(model, path: Path) -> None:
    """Write `model` with its optimizer as a .keras file that loads where there is no Horovod. One rank calls it."""
    with atomic_path(path) as temporary, plain(model):
        model.save(temporary)
