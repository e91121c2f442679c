"""Losses and metrics by name: of Keras, or in a user's own file."""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from hpc_train.data.catalogue.layout import split_word
from hpc_train.errors import UserError
from hpc_train.training.own_model import script

# Short names that Keras takes for classes.
_SHORT = {
    "mse": "MeanSquaredError",
    "mae": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError",
    "msle": "MeanSquaredLogarithmicError",
    "bce": "BinaryCrossentropy",
    "kld": "KLDivergence",
    "acc": "accuracy",
    "ce": "crossentropy",
}
# Keras chooses these by the shapes of targets and outputs.
_BY_SHAPE = ("accuracy", "crossentropy")
_BASES = ("Loss", "Metric", "MeanMetricWrapper")


def check(losses: tuple[str, ...], metrics: tuple[str, ...]) -> None:
    """UserError, before anything is imported, for what names no file."""
    for option, words in (("--loss", losses), ("--metrics", metrics)):
        for _, name in map(split_word, words):
            if script.is_reference(name):
                script.check(name, option)


def absolute(word: str) -> str:
    """A word of --loss or --metrics with the absolute path of its file, if it names one."""
    output, name = split_word(word)
    return f"{output}={script.absolute(name)}" if output else script.absolute(name)


def of_outputs(option: str, words: Sequence[str], outputs: Sequence[str]) -> dict[str, list[str]]:
    """The names that `words` give each output: those without an output's name are for all.

    Args:
        option: for messages.
        words: such as "mae" or "y=mae".
        outputs: names of the outputs, or "" for the only one.

    Raises:
        UserError: there is no such output.
    """
    found: dict[str, list[str]] = {output: [] for output in outputs}
    for output, name in map(split_word, words):
        if output and output not in found:
            there = ", ".join(filter(None, outputs))
            remedy = f"there are {there}" if there else "name targets, as in --targets y=DATASET, or leave it out"
            raise UserError(f"{option} {output}={name}: no target has the name {output}; {remedy}")
        for chosen in [output] if output else outputs:
            found[chosen].append(name)
    return found


def loss(name: str, logits: Callable[[], bool]):
    """The loss that `name` names.

    Args:
        name: of a loss of Keras, as a class or a function; or `FILE.py:NAME` of a function, class or object.
        logits: whether the network gives logits; asked where the loss has to know.

    Raises:
        UserError: there is no such loss.
    """
    import keras

    if script.is_reference(name):
        return _own(name)
    kind = _class(name, keras.losses, "--loss")
    return kind(from_logits=logits()) if "from_logits" in _parameters(kind) else _made(kind, {}, f"--loss {name}")


def metric(name: str, classes: int, logits: Callable[[], bool]):
    """The metric that `name` names, or a text by which Keras chooses one.

    Args:
        name: as in `loss`, of a metric.
        classes: number of classes of the targets; 0 for none.
        logits: as in `loss`.

    Raises:
        UserError: there is no such metric, or it needs arguments that only the user knows.
    """
    import keras

    if script.is_reference(name):
        found = _own(name)
        return _aligned(found) if inspect.isfunction(found) else found
    if _SHORT.get(name.lower(), name) in _BY_SHAPE:
        return name
    option = f"--metrics {name}"
    kind = _class(name, keras.metrics, "--metrics")
    known = {"num_classes": classes or None, "sparse_y_pred": False, "average": "macro"}
    parameters = _parameters(kind)
    given: dict[str, Any] = {key: value for key, value in known.items() if key in parameters and value is not None}
    if "from_logits" in parameters:
        given["from_logits"] = logits()
    elif {"thresholds", "num_thresholds", "threshold"} & set(parameters) and "average" not in parameters and logits():
        if name.lower() not in ("binaryaccuracy", "binary_accuracy"):
            raise UserError(
                f"{option} counts probabilities, and the last layer of the network is no sigmoid or softmax: add one"
            )
        given["threshold"] = 0.0
    if name != kind.__name__:
        given["name"] = name
    return _made(kind, given, option)


def _own(reference: str):
    """A user's own loss or metric; one that is a class is made without arguments."""
    found = script.load(reference)
    with script.explained(reference):
        return found() if inspect.isclass(found) else found


def _aligned(function: Callable) -> Callable:
    """A function of targets and outputs that gets both with the same axes, as Keras has it for losses."""
    from keras import ops

    @functools.wraps(function)
    def aligned(y_true, y_pred):
        if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)
        elif len(y_pred.shape) == len(y_true.shape) - 1 and y_true.shape[-1] == 1:
            y_pred = ops.expand_dims(y_pred, -1)
        return function(y_true, y_pred)

    return aligned


def _class(name: str, home, option: str) -> type:
    """The class of Keras's that a name of a class, of its function, or a short name means."""
    known = {key: value for key, value in vars(home).items() if inspect.isclass(value) and key not in _BASES}
    names = {spelt: key for key in known for spelt in (key, _snake(key))}
    names |= {spelt: key for short, key in _SHORT.items() if key in known for spelt in (short, short.upper())}
    if name in names:
        return known[names[name]]
    folded = {spelt.lower(): spelt for spelt in (*names, *_BY_SHAPE)}
    near = difflib.get_close_matches(name.lower(), folded, 1, 0.5)
    meant = f"did you mean {folded[near[0]]}?" if near else f"there are {', '.join(sorted(known))}"
    raise UserError(f"{option} {name}: Keras has none of this name; {meant} Your own is FILE.py:NAME")


def _snake(name: str) -> str:
    """The name of a class as Keras writes it in small letters."""
    parts = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", parts).lower()


def _parameters(kind: type) -> dict:
    return dict(inspect.signature(kind).parameters)


def _made(kind: type, given: dict, option: str):
    missing = [
        key
        for key, parameter in _parameters(kind).items()
        if key not in given and parameter.default is parameter.empty and parameter.kind not in (2, 4)
    ]
    if missing:
        raise UserError(
            f"{option}: {kind.__name__} needs {', '.join(missing)}; make it in a file of your own, as FILE.py:NAME"
        )
    return kind(**given)
