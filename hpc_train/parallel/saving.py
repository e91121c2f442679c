"""Models as plain Keras knows them: nothing of Horovod or of this package in the file."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from hpc_train.console import say
from hpc_train.files.whole import NotWritten, atomic_path
from hpc_train.optim.wrapper import unwrap

_said: WeakKeyDictionary = WeakKeyDictionary()
# Where Keras looks for a function whose name alone is in a file.
_FUNCTIONS = (keras.losses, keras.metrics, keras.activations, keras.initializers, keras.regularizers, keras.constraints)

_LAMBDA = "a lambda"


@contextmanager
def plain(model) -> Iterator[None]:
    """Inside the `with` block `model` is compiled with parts that plain Keras knows.

    These are the innermost optimizer of its chain, and, for losses and metrics of this package, what their `plain()`
    returns; None leaves a metric out. Other metrics that Keras does not know are left out. Where the loss or the
    optimizer is not known, the model is not compiled.
    """
    config, _ = _plain_compile_config(model)
    wrapped = getattr(model, "optimizer", None)
    model.get_compile_config = lambda: config
    if wrapped is not None:
        model.optimizer = unwrap(wrapped)
    try:
        yield
    finally:
        del model.get_compile_config
        if wrapped is not None:
            model.optimizer = wrapped


def say_what_is_left_out(model) -> None:
    """Print, once a model, which parts of its `compile` are not in the files of `save_model`. One rank calls it."""
    _, out = _plain_compile_config(model)
    if out:
        again = any(part.startswith(("loss", "optimizer", "compile")) for part in out)
        parts = f"without {', '.join(dict.fromkeys(out))}, which Keras alone cannot load"
        _say_once(model, f"note: save_model writes the model {parts}{'; compile it after loading' if again else ''}")


def _say_what_loading_needs(model) -> None:
    own = [] if type(model).__module__.split(".")[0] == "keras" else [type(model).__name__]
    own += _own_names(keras.saving.serialize_keras_object(model)["config"])
    named = ", ".join(name for name in dict.fromkeys(own) if name != _LAMBDA)
    needs = [f"custom_objects for {named}"] if named else []
    needs += ["safe_mode=False for a lambda"] if _LAMBDA in own else []
    if needs:
        _say_once(model, f"note: to load the model that save_model writes, load_model needs {' and '.join(needs)}")


def _say_once(model, text: str) -> None:
    said = _said.setdefault(model, set())
    if text not in said:
        said.add(text)
        say(text)


def save_model(model, path: Path) -> None:
    """Write `model` with its optimizer as a .keras file that loads where there is no Horovod. One rank calls it.

    What Keras alone cannot load is left out, and named in a line. Where the architecture cannot be written, the weights
    are, in a file beside it that ends in .weights.h5.
    """
    say_what_is_left_out(model)
    try:
        with atomic_path(path, needed=_bytes(model)) as temporary, plain(model):
            model.save(temporary)
            _say_what_loading_needs(model)
    except (OSError, NotWritten):
        raise
    except Exception as error:
        weights = path.with_name(f"{path.stem}.weights.h5")
        with atomic_path(weights, needed=_bytes(model)) as temporary:
            model.save_weights(temporary)
        reason = " ".join(str(error).split())
        say(f"warning: {path} was not written, as Keras cannot save this model ({reason:.200}); its weights: {weights}")


def _bytes(model) -> int:
    """Of the variables of a model and its optimizer."""
    held = [*model.variables, *getattr(getattr(model, "optimizer", None), "variables", [])]
    return sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in held)


def _plain_compile_config(model) -> tuple[dict, list[str]]:
    """How to compile `model` in plain Keras, {} for not at all, and which parts that leaves out."""
    try:
        config = dict(model.get_compile_config() or {})
    except Exception as error:
        return {}, [f"compile arguments ({type(error).__name__})"]
    if not config:
        return {}, []
    out: list[str] = []
    config["optimizer"] = keras.saving.serialize_keras_object(unwrap(model.optimizer))
    if foreign := _own_names(config["optimizer"]):
        out.append(f"optimizer {foreign[0]}")
    config["loss"] = _each(config.get("loss"), _plain)
    out += [f"loss {name}" for name in _own_names(config["loss"])]
    unusable = bool(out)

    def known(metric):
        metric = _plain(metric)
        if names := _own_names(metric):
            out.append(f"metric {names[0]}")
            return None
        return metric

    outputs = len(getattr(model, "outputs", None) or [None])
    for key in ("metrics", "weighted_metrics"):
        metrics = config.get(key)
        if outputs > 1 and isinstance(metrics, (list, tuple)) and len(metrics) == outputs:
            config[key] = [_each(part, known) for part in metrics]  # one for each output: places count
        else:
            config[key] = _each(metrics, known)
    return ({}, out) if unusable else (config, out)


def _each(parts, change: Callable):
    """`parts`, serialised losses or metrics in lists and dicts, each changed; None in a list is left out."""
    if isinstance(parts, (list, tuple)):
        changed = [_each(part, change) for part in parts]
        return [part for part in changed if part is not None]
    if isinstance(parts, dict) and "class_name" not in parts:
        return {key: _each(part, change) for key, part in parts.items()}
    return None if parts is None else change(parts)


def _plain(part):
    """A serialised loss or metric; those of this package as Keras's own that is nearest, None where there is none."""
    if not isinstance(part, dict) or not str(part.get("registered_name")).startswith("hpc_train>"):
        return part
    made = keras.saving.deserialize_keras_object(part)
    if not hasattr(made, "plain"):
        return part
    nearest = made.plain()
    return None if nearest is None else keras.saving.serialize_keras_object(nearest)


def _own_names(config) -> list[str]:
    """Classes and functions in a serialised object that are not Keras's."""
    if isinstance(config, (list, tuple)):
        return [name for part in config for name in _own_names(part)]
    if not isinstance(config, dict):
        return []
    kind, content = config.get("class_name"), config.get("config")
    if kind == "function" and isinstance(content, str):
        known = any(hasattr(module, content) for module in _FUNCTIONS)
        return [] if known else [content]
    if kind == "__lambda__":
        return [_LAMBDA]
    known = str(config.get("module")).split(".")[0] in ("keras", "builtins")
    if kind and "registered_name" in config and not known:
        return [str(kind)]
    return [name for part in config.values() for name in _own_names(part)]
