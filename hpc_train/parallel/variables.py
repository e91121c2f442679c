"""The variables of a model by what the ranks do with them."""

import math
import re
from collections.abc import Iterator
from typing import Any


def is_seed(variable) -> bool:
    """True for the state of a random layer, which differs between ranks on purpose."""
    return variable.path.endswith("seed_generator_state")


def seeds(model) -> list:
    """States of the model's random layers: (2,) integers, a seed and a counter."""
    return [variable for variable in model.non_trainable_variables if is_seed(variable)]


def statistics(model) -> list:
    """Floating-point state that each rank gathers from its own batches, such as batch normalisation's."""
    # Weights of frozen layers do not change, and may be many. Their other state does: a memory queue, a codebook.
    layers = model._flatten_layers()
    weights = {id(v) for layer in layers for v in layer._trainable_variables}
    frozen = weights & {id(v) for layer in layers if not layer.trainable for v in layer.variables}
    return [v for v in model.non_trainable_variables if not is_seed(v) and "float" in v.dtype and id(v) not in frozen]


def marks(model) -> list:
    """Other state outside training that must be equal on all ranks: whole numbers, truth values, complex numbers."""
    return [v for v in model.non_trainable_variables if not is_seed(v) and "float" not in v.dtype]


def parameters(model) -> int:
    """Number of a model's weights; Keras's count_params refuses models that were only built inside a step."""
    return sum(math.prod(weight.shape) for weight in model.weights)


def optimizers(model) -> list:
    """The model's optimizer, and those that a model with a training step of its own, or a part of it, holds."""
    return list({id(optimizer): optimizer for _, optimizer in named_optimizers(model)}.values())


def named_optimizers(model) -> list[tuple[str, Any]]:
    """The model's optimizers with the names of their attributes; `optimizer`, the one of `compile`, comes first."""
    import keras

    pairs = [("optimizer", getattr(model, "optimizer", None)), *_attributes(model)]
    return [(name, value) for name, value in pairs if isinstance(value, keras.optimizers.Optimizer)]


def _attributes(model) -> Iterator[tuple[str, Any]]:
    """Names and values of the attributes of a model and its layers, and of the items of lists, tuples and dicts."""
    for layer in model._flatten_layers():
        prefix = "" if layer is model else f"{layer.name}."
        for name, value in list(vars(layer).items()):
            # TensorFlow notes the same attributes once more for its own files.
            if not name.startswith("_self_"):
                yield from _items(prefix + name, value, set())


def _items(name: str, value, seen: set[int]) -> Iterator[tuple[str, Any]]:
    yield name, value
    if not isinstance(value, (dict, list, tuple)) or id(value) in seen:
        return
    seen.add(id(value))
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield from _items(f"{name}[{key!r}]", item, seen)


def optimizer_variables(model) -> list:
    """State of the model's optimizers, with loss scale and waiting gradients, in the order in which it was made."""
    return [variable for optimizer in optimizers(model) for variable in optimizer.variables]


def replicated(model) -> list:
    """State that is equal on all ranks after every step: weights, `marks` and optimizer.

    Waiting gradients (lag 1) are each rank's own.
    """
    own = {id(variable) for optimizer in optimizers(model) for variable in getattr(optimizer, "waiting", ())}
    optimizer_state = [variable for variable in optimizer_variables(model) if id(variable) not in own]
    return [*model.trainable_variables, *marks(model), *optimizer_state]


def inference(model) -> list:
    """State that a prediction depends on: weights and statistics."""
    return [*model.trainable_variables, *(v for v in model.non_trainable_variables if not is_seed(v))]


def everything(model) -> list:
    """All state that a resumed run needs: weights, statistics, seeds, optimizer state."""
    return [*model.trainable_variables, *model.non_trainable_variables, *optimizer_variables(model)]


def named(variables) -> list[tuple[str, Any]]:
    """Variables with unique names: their Keras path, numbered where paths repeat."""
    seen: dict[str, int] = {}
    pairs = []
    for variable in variables:
        count = seen[variable.path] = seen.get(variable.path, 0) + 1
        pairs.append((variable.path if count == 1 else f"{variable.path}#{count}", variable))
    return pairs


def descriptions(variables) -> list[str]:
    """Name, shape and dtype of each variable: equal on ranks that built the same model.

    Names have no numbers at the ends of their parts: Keras counts layers from the start of each process.
    """
    return [f"{re.sub(r'_[0-9]+(?=/|$)', '', v.path)} {tuple(v.shape)} {v.dtype}" for v in variables]
