"""Models as plain Keras knows them: nothing of Horovod or of this package in the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from hpc_train.files import atomic_path
from hpc_train.optim.wrapper import unwrap


@contextmanager
def plain(model) -> Iterator[None]:
    """Within it, `model` is compiled with what plain Keras knows.

    That is the optimizer at the heart of its chain, and for a loss of this package the one that its `plain()` names.
    """
    wrapped = model.optimizer
    config = model.get_compile_config()
    if config:
        config = {
            **config,
            "optimizer": keras.saving.serialize_keras_object(unwrap(wrapped)),
            "loss": keras.saving.serialize_keras_object(keras.tree.map_structure(_plain_loss, model.loss)),
        }
    model.get_compile_config = lambda: config
    model.optimizer = unwrap(wrapped)
    try:
        yield
    finally:
        del model.get_compile_config
        model.optimizer = wrapped


def _plain_loss(loss):
    return loss.plain() if hasattr(loss, "plain") else loss


def save_model(model, path: Path) -> None:
    """Write `model` with its optimizer as a .keras file that loads where there is no Horovod. One rank calls it."""
    with atomic_path(path) as temporary, plain(model):
        model.save(temporary)
