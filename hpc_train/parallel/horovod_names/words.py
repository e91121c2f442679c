"""Words of Keras 2 whose meaning is plain, for Horovod scripts that were written with them."""

import functools
import numbers

import keras

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.parallel.launcher import detect

_said: set[str] = set()


class CallableList(list):
    """Variables of an optimizer: a list in Keras 3, a function in Keras 2."""

    def __call__(self):
        return self


def once(text: str) -> None:
    """Print a line once, on rank 0."""
    if text not in _said and detect().rank == 0:
        say(text)
    _said.add(text)


def teach() -> None:
    """Let Keras 3 take these words of Keras 2; those that change nothing are dropped with a line on rank 0.

    `compile(experimental_run_tf_function=)`; optimizers' `lr=`, `decay=0`, rates that are whole numbers, `.lr`,
    `variables()`, and what optimizers of one's own call in Keras 2.11 to 2.15; `ref()` of variables; `K.set_value`;
    `reset_states` of metrics, called or defined.
    Metrics are averaged before a callback of Keras decides by them, in whatever order a script lists the two.
    """
    optimizer = keras.optimizers.Optimizer
    if getattr(optimizer, "_build_learning_rate", None) is not None:
        return
    # Where Keras has it: elsewhere it would count as a model's own, and models would load without their optimizer.
    home = next(kind for kind in keras.Model.__mro__ if "compile" in vars(kind))
    home.compile = _compile(home.compile)
    optimizer.__init__ = _init(optimizer.__init__)
    optimizer.lr = property(lambda self: self.learning_rate, lambda self, rate: _set_rate(self, rate))
    optimizer._build_learning_rate = _build_learning_rate
    for kind in (optimizer, keras.optimizers.LossScaleOptimizer):
        kind.variables = _callable_too(kind.variables)
    keras.callbacks.CallbackList.__init__ = _average_first(keras.callbacks.CallbackList.__init__)
    keras.Metric.reset_states = _reset_states
    keras.Metric.__init_subclass__ = classmethod(_new_metric)
    for kind in _kinds_of(keras.Metric):
        _take_reset_states(kind)
    keras.Variable.ref = lambda self: self.value.ref()
    _set_values()
    _same_names()


def _reset_states(self) -> None:
    # Not that of a subclass which has this name for it, and calls its parent's from there.
    kinds = [vars(kind) for kind in type(self).__mro__ if "reset_state" in vars(kind)]
    next(own["reset_state"] for own in kinds if own["reset_state"] is not own.get("reset_states"))(self)


def _new_metric(cls, **kwargs) -> None:
    super(keras.Metric, cls).__init_subclass__(**kwargs)
    _take_reset_states(cls)


def _take_reset_states(kind) -> None:
    # Keras 3 calls reset_state only: what the script wrote would never run.
    if "reset_states" in vars(kind) and "reset_state" not in vars(kind):
        kind.reset_state = kind.reset_states


def _kinds_of(kind) -> list[type]:
    return [one for below in kind.__subclasses__() for one in (below, *_kinds_of(below))]


def _same_names() -> None:
    # Some functions and layers have one name in keras, another in tf.keras, and in Keras 2 both in both.
    import tensorflow as tf

    for room in ("layers", "losses", "metrics"):
        first, second = getattr(keras, room), getattr(tf.keras, room)
        for here, there in ((first, second), (second, first)):
            for name in set(dir(there)) - set(dir(here)):
                setattr(here, name, getattr(there, name))


def _set_values() -> None:
    import tensorflow as tf

    backend = tf.keras.backend
    plain = backend.set_value
    # That of Keras 3 takes no variables of Keras 3.
    backend.set_value = lambda x, value: x.assign(value) if isinstance(x, keras.Variable) else plain(x, value)
    backend.batch_set_value = lambda pairs: [backend.set_value(x, value) for x, value in pairs] and None


def _average_first(plain):
    @functools.wraps(plain)
    def __init__(self, *args, **kwargs):
        from hpc_train.parallel.metrics import ExactMetrics

        plain(self, *args, **kwargs)
        # A rank that stops early, or lowers its rate, by its own metrics would leave the others behind.
        averaging = [callback for callback in self.callbacks if isinstance(callback, ExactMetrics)]
        others = [callback for callback in self.callbacks if not isinstance(callback, ExactMetrics)]
        of_keras = [i for i, c in enumerate(others) if type(c).__module__.startswith("keras.")]
        ours = [i for i, c in enumerate(self.callbacks) if c in averaging]
        if averaging and of_keras and min(ours) > of_keras[0]:
            self.callbacks[:] = [*others[: of_keras[0]], *averaging, *others[of_keras[0] :]]

    return __init__


def _compile(plain):
    @functools.wraps(plain)
    def compile(self, *args, **kwargs):
        if "experimental_run_tf_function" in kwargs:
            del kwargs["experimental_run_tf_function"]
            once("note: compile(experimental_run_tf_function=...) has no meaning since TensorFlow 2.4: left out")
        return plain(self, *args, **kwargs)

    return compile


def _init(plain):
    @functools.wraps(plain)
    def __init__(self, *args, **kwargs):
        if "lr" in kwargs:
            kwargs["learning_rate"] = kwargs.pop("lr")
            args = args[1:]
            once("note: optimizers take learning_rate=; lr= is read as that")
        if decay := kwargs.pop("decay", None):
            raise UserError(
                f"{type(self).__name__}(decay={decay:g}): Keras 3 has no decay=, and would ignore it; give "
                f"learning_rate=keras.optimizers.schedules.InverseTimeDecay(RATE, 1, {decay:g}), which does the same"
            ).agreed()
        if args and isinstance(args[0], numbers.Real):
            args = (float(args[0]), *args[1:])
        elif not args:
            rate = kwargs.setdefault("learning_rate", 0.0)
            kwargs["learning_rate"] = float(rate) if isinstance(rate, numbers.Real) else rate
        plain(self, *args, **kwargs)

    return __init__


def _set_rate(optimizer, rate) -> None:
    optimizer.learning_rate = rate


def _build_learning_rate(self, rate):
    self.learning_rate = rate
    return self._learning_rate


def _callable_too(plain) -> property:
    return property(lambda self: CallableList(plain.fget(self)))
