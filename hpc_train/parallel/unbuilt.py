"""Models that have no variables until they see a batch: the first batch builds them, before its step is made."""

import itertools
import re
import weakref
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.collectives import everywhere

# Layers that stayed without variables when their model was built: the training step does not use them.
_UNUSED: weakref.WeakSet = weakref.WeakSet()


def when_built(model, act: Callable[[], None]) -> None:
    """Call `act` when `model` has all its variables: now, or after its first batch was seen and before its step.

    Call it when training begins. Collective: all ranks act at the same point, also where some built the model before.
    """
    leave(model)
    if model.train_function is not None and not everywhere(not _is_unbuilt(model), "hpc_train.unbuilt"):
        model.train_function = _FirstBatch(model, act)
    else:
        act()


def built(model) -> None:
    """Note that a step of `model` has been traced: a layer without variables will have none."""
    _UNUSED.update(layer for layer in model._flatten_layers() if not layer.built)


def leave(model) -> None:
    """Give `model` back what it was trained by, where no first batch came."""
    if waits(model):
        model.train_function = model.train_function.execute


def waits(model) -> bool:
    """Whether `model` waits for its first batch."""
    return isinstance(model.train_function, _FirstBatch)


def _is_unbuilt(model) -> bool:
    return any(not layer.built and layer not in _UNUSED for layer in model._flatten_layers())


class _FirstBatch:
    """A model's training function until its first batch."""

    def __init__(self, model, act: Callable[[], None]):
        self.model, self.act, self.execute = model, act, model.train_function

    def __call__(self, iterator):
        leave(self.model)
        iterator = _build(self.model, iterator)
        built(self.model)
        self.act()
        return self.execute(iterator)


def _build(model, batches) -> Iterator:
    """Build `model`, its optimizers and metrics from the next of `batches`; returns the same batches."""
    try:
        # Tracing a step makes all variables as the step itself would, and computes nothing.
        tf.function(model.train_step, autograph=False).get_concrete_function(_without_optionals(batches.element_spec))
        return batches
    except Exception:
        if not model.run_eagerly:
            raise
    batch = next(batches)
    try:
        model(keras.utils.unpack_x_y_sample_weight(_without_optionals(batch))[0])
    except Exception as error:
        raise UserError(
            f"the model {model.name!r} has no weights when training begins, and its first batch does not make them "
            f"({in_a_line(error)}): call the model on a batch before fit"
        ).agreed() from error
    return itertools.chain([batch], batches)


def in_a_line(error: BaseException) -> str:
    """Type and message of an exception, without Keras's account of the call."""
    # Keras says first in which layer it happened, and last what the layer was given.
    lines = [line for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    said = lines[1:2] if lines and lines[0].startswith("Exception encountered") else lines[:1]
    return f"{type(error).__name__}: {''.join(said)}"


def _without_optionals(structure):
    """`structure` as a training step is given it: Keras's data sets have optionals in place of None."""
    optional = (tf.experimental.Optional, tf.OptionalSpec)
    return keras.tree.map_structure(lambda value: None if isinstance(value, optional) else value, structure)
