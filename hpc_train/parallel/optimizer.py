"""The optimizer that averages gradients over the ranks before it applies them."""

import contextlib
import functools
import re
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.optim.lag import Waiting
from hpc_train.parallel import wire
from hpc_train.parallel.agreement.first_steps import FirstSteps
from hpc_train.parallel.agreement.strategy import refuse_strategy
from hpc_train.parallel.agreement.watch import watch_loop
from hpc_train.parallel.variables import optimizers
from hpc_train.units import MIB

_REDUCTIONS = ("average", "sum", "adasum")
# At run time the next class is the optimizer's own.
_Optimizer: Any = object


class DistributedOptimizer(_Optimizer):
    """Makes a Keras optimizer average its gradients over all ranks before it applies them.

    The call returns the optimizer that it is given, with all its state: its class becomes a subclass of its own whose
    `apply` averages first. So each attribute, method and setting is the optimizer's own, `isinstance` holds, and what
    is saved is the plain optimizer, which loads where there is no Horovod. Subclasses may override `average`.

    It goes around a `LossScaleOptimizer`, and moves there if one is put around it: overflow must be judged on the
    averaged gradient, or ranks disagree on skipping a step and hang. Gradients travel in buckets, one grouped
    all-reduce each. The last layers' come first, since the backward pass has those ready first.

    With lag 1 a step averages and applies the gradient of the step before (see `optim.lag`): the all-reduces have
    nothing to wait for, and run beside the whole forward and backward pass. The first step only stores its gradient for
    the second, and the gradient of the last step is never applied. An overflow is seen one step late, when the next
    gradient has overflowed too, so the loss scale is halved twice. Sparse gradients become dense.

    Args:
        inner_optimizer: a Keras optimizer, or its name.
        wire_dtype: None, "float16" or "bfloat16": the type in which float32 gradients travel.
        bucket_mib: MiB of gradients in one grouped all-reduce.
        lag: steps from a gradient to its use, 0 or 1.
        reduction: "average", "sum", or "adasum": `wire.adasum` instead of the mean, layer by layer.
        name: a new name for the optimizer; None keeps its own.

    Raises:
        ValueError: an unknown `wire_dtype`, `lag` or `reduction`; a bucket size that is not positive; adasum with a
            `wire_dtype`.
        UserError: on every rank, for an optimizer that averages already, and for what is no optimizer.
    """

    def __new__(
        cls,
        inner_optimizer,
        wire_dtype: str | None = None,
        bucket_mib: float = 32.0,
        lag: int = 0,
        reduction: str = "average",
        name: str | None = None,
    ):
        if wire_dtype not in (None, "float16", "bfloat16"):
            raise ValueError(f"wire_dtype must be None, 'float16' or 'bfloat16', not {wire_dtype!r}")
        if bucket_mib <= 0:
            raise ValueError(f"bucket_mib must be positive, not {bucket_mib}")
        if lag not in (0, 1):
            raise ValueError(f"lag must be 0 or 1, not {lag!r}")
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction must be 'average', 'sum' or 'adasum', not {reduction!r}")
        if reduction == "adasum" and wire_dtype:
            raise ValueError(f"adasum takes gradients as they are, not in {wire_dtype}")
        settings = {"wire_dtype": wire_dtype, "bucket_mib": bucket_mib, "lag": lag, "reduction": reduction}
        return cls._distributed(keras_optimizer(inner_optimizer), settings, name)

    def __init__(self, *args, **kwargs):
        # The optimizer was made before; Python calls this after __new__.
        pass

    @classmethod
    def _distributed(cls, optimizer, settings: dict, name: str | None = None, more: dict | None = None):
        """Give `optimizer` its subclass of `cls`, with `settings` as its attributes, and `more` in its class."""
        _check(optimizer)
        plain = type(optimizer)
        # In the class, which is this optimizer's alone: the object has nothing that a plain one has not.
        state = _State(FirstSteps(_unnumbered(optimizer.name)), settings)
        own = {"_plain": plain, "_settings": (cls, settings), "_state": state, **(more or {})}
        swap_class(optimizer, plain, (cls, plain), own)
        if name is not None:
            optimizer.name = name
        if optimizer.built:
            optimizer._keep_waiting(optimizer._trainable_variables)
        return optimizer

    def __getattr__(self, name):
        state = None if name.startswith("__") else object.__getattribute__(self, "_state")
        if state is not None and name in state.settings:
            return state.settings[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def move_to(self, outer) -> None:
        """Let `outer`, an optimizer around this one, average in its place."""
        home, settings = self._settings
        _set_class(self, self._plain)
        home._distributed(outer, settings)

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._keep_waiting(list(variables))

    def build_for(self, variables) -> None:
        """Build for `variables` if not built yet."""
        if not self.built:
            with keras.name_scope(self.name):
                self.build(list(variables))

    def _keep_waiting(self, variables: list) -> None:
        if self.lag and self._state.waiting is None:
            self._state.waiting = Waiting(variables)

    @property
    def variables(self):
        waiting = self._state.waiting
        return [*super().variables, *([waiting.scale, *waiting.gradients] if waiting else [])]

    @property
    def waiting(self) -> list:
        """With lag 1, variables with this rank's own gradients of the last step, which the next step averages."""
        return self._state.waiting.gradients if self._state.waiting else []

    def save_own_variables(self, store):
        # Without what waits: the file is of the plain optimizer.
        for i, variable in enumerate(super().variables):
            store[str(i)] = variable.numpy()

    def apply(self, grads, trainable_variables=None):
        """Average `grads` (tensors, IndexedSlices or None) over the ranks and apply them."""
        state = self._state
        if state.collected is not None:
            state.collected.take(list(grads), trainable_variables)
            return
        grads = list(grads)
        if not grads:
            return
        self._check_place()
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            self.build_for(trainable_variables)
        weights = trainable_variables or self._trainable_variables
        self._check_first_steps(weights, grads)
        if state.waiting:
            means = self.average(state.waiting.of(weights, grads), weights)
            state.waiting.exchange(means, grads, weights, self.scale_loss, super().apply)
        else:
            super().apply(self.average(grads, weights), trainable_variables)

    def _check_place(self) -> None:
        """Refuse to average where ranks would hang, or where another strategy averages too."""
        refuse_strategy()
        if _inside_branch():
            raise ValueError(
                "gradients would be averaged inside a LossScaleOptimizer, whose ranks may disagree on overflow and "
                "hang: wrap the other way round, DistributedOptimizer(LossScaleOptimizer(...)), and compile with "
                "auto_scale_loss=False"
            )

    def _check_first_steps(self, weights: list, grads: list) -> None:
        """Notice ranks that average the gradients of different weights, or wait in vain."""
        # A rank that joins an elastic job has made fewer steps than the others.
        if not (wire.alone() or wire.elastic()):
            watch_loop()
            self._state.first_steps.check(weights, grads)

    @property
    def _wire_name(self) -> str:
        return _unnumbered(self.name)

    def average_waiting(self) -> None:
        """Replace the waiting gradients by their means over the ranks; the next step's result is the same. Collective.

        Then rank 0's state is the state of all ranks, and a checkpoint of it is complete.
        """
        if hvd.size() > 1 and self.waiting:
            means = self.average([tf.convert_to_tensor(variable) for variable in self.waiting])
            for variable, mean in zip(self.waiting, means, strict=True):
                variable.assign(mean)

    @contextlib.contextmanager
    def collecting(self):
        """Inside the `with` block `apply` only stores its gradients, in the `Collected` that the block is given."""
        self._state.collected = Collected()
        try:
            yield self._state.collected
        finally:
            self._state.collected = None

    def average(self, grads: list, weights: list | None = None) -> list:
        """The mean over the ranks of each gradient, or its sum or adasum; None stays None.

        IndexedSlices stay sparse in a mean or sum; adasum makes them dense.

        Args:
            grads: tensors, IndexedSlices or None.
            weights: the variable of each gradient, for shapes that a gradient does not know.
        """
        if wire.alone():
            return grads
        # Keras takes NumPy's arrays too.
        grads = [tf.convert_to_tensor(grad) if isinstance(grad, np.ndarray) else grad for grad in grads]
        averaged = list(grads)
        if self.reduction == "adasum":
            for i in reversed([i for i, grad in enumerate(grads) if grad is not None]):
                averaged[i] = wire.adasum(tf.convert_to_tensor(grads[i]), f"{self._wire_name}.adasum.{i}")
            return averaged
        dense = []
        for i, grad in enumerate(grads):
            if isinstance(grad, tf.IndexedSlices):
                averaged[i] = wire.reduce_sparse(grad, f"{self._wire_name}.sparse.{i}", self.reduction)
            elif grad is not None:
                dense.append(i)
        for i in dense:
            if not grads[i].shape.is_fully_defined() and weights is not None:
                # A batch of unknown size leaves it open; it is the variable's.
                grads[i] = tf.ensure_shape(grads[i], weights[i].shape)
        for number, bucket in enumerate(wire.buckets(dense, grads, self.bucket_mib * MIB)):
            name = f"{self._wire_name}.bucket.{number}"
            means = wire.reduce([grads[i] for i in bucket], name, self.wire_dtype, self.reduction)
            for i, mean in zip(bucket, means, strict=True):
                averaged[i] = mean
        return averaged

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """An optimizer from `config`: a distributed optimizer's own, or, of the class itself, of hpc-train 0.1."""
        if cls._settings is not None:
            home, settings = cls._settings
            return home._distributed(cls._plain.from_config(config), settings)
        config = {name: value for name, value in config.items() if name != "name"}
        inner = keras.saving.deserialize_keras_object(config.pop("inner_optimizer"), custom_objects=custom_objects)
        return cls(inner, **config)

    def __reduce__(self):
        """Pickle the plain optimizer, and distribute it again when it is loaded."""
        own = type(self)
        _set_class(self, self._plain)
        try:
            make, arguments = self.__reduce__()
        finally:
            _set_class(self, own)
        return _distributed_again, (*own._settings, make, arguments)

    _plain: Any = None
    _settings: Any = None
    _state: Any = None


# Files of hpc-train 0.1 name the class as an optimizer around another.
keras.saving.get_custom_objects()["hpc_train>DistributedOptimizer"] = DistributedOptimizer


def swap_class(optimizer, plain: type, bases: tuple[type, ...], own: dict) -> None:
    """Give an optimizer a subclass that looks like its class `plain`, to isinstance and to Keras when it saves."""
    names = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
    _set_class(optimizer, type(plain.__name__, bases, {**names, "__class__": property(lambda self: plain), **own}))


def _set_class(optimizer, kind: type) -> None:
    # Not by an assignment: the subclass shows another class.
    object.__dict__["__class__"].__set__(optimizer, kind)


def _unnumbered(name: str) -> str:
    """A name that is the same on every rank: Keras counts the optimizers that a process has made.

    Of two optimizers with one name in a compiled function, TensorFlow numbers the operations.
    """
    return re.sub(r"_[0-9]+$", "", name)


def keras_optimizer(given):
    """The optimizer that `given` is, names or describes.

    Raises:
        UserError: on every rank, where it is none.
    """
    with contextlib.suppress(ValueError, TypeError):
        found = keras.optimizers.get(given)
        if isinstance(found, keras.optimizers.Optimizer):
            return found
    plain = isinstance(given, (str, dict, type, type(None)))
    what = repr(given) if plain else f"{type(given).__module__}.{type(given).__name__}"
    raise UserError(
        f"DistributedOptimizer: {what} is no optimizer of Keras 3; give it one, such as keras.optimizers.Adam(0.001), "
        "or the name of one"
    ).agreed()


def _check(optimizer) -> None:
    if isinstance(optimizer, DistributedOptimizer):
        raise UserError(
            f"{type(optimizer).__name__} is wrapped in a DistributedOptimizer already, and would average its gradients "
            "twice: wrap it once"
        ).agreed()
    refuse_strategy()


def _distributed_again(home, settings, make, arguments):
    return home._distributed(make(*arguments), settings)


class _State:
    """What a distributed optimizer has beside the plain one."""

    def __init__(self, first_steps: FirstSteps, settings: dict):
        self.first_steps = first_steps
        self.settings = settings
        self.waiting: Waiting | None = None
        self.collected: Collected | None = None


class Collected:
    """Gradients of one `apply`, with their variables."""

    def __init__(self):
        self.grads: list = []
        self.variables: list = []

    def take(self, grads: list, variables) -> None:
        """Store them.

        Raises:
            ValueError: for a second `apply`, whose gradients would be lost.
        """
        if self.grads:
            raise ValueError("gradients are accumulated over train steps that apply them once; this one applies twice")
        self.grads, self.variables = grads, list(variables)


def _keep_xla_out() -> None:
    """Let Keras compile no step of a distributed optimizer by XLA, which knows no Horovod; else it does on GPUs.

    Evaluation is compiled by XLA where `compile` asks for it in so many words: it calls no Horovod.
    """
    trainer: Any = next(kind for kind in keras.Model.__mro__ if "make_train_function" in vars(kind))
    plain = trainer.make_train_function

    @functools.wraps(plain)
    def make_train_function(self, *args, **kwargs):
        if not any(isinstance(optimizer, DistributedOptimizer) for optimizer in optimizers(self)):
            return plain(self, *args, **kwargs)
        self.jit_compile = False
        made = plain(self, *args, **kwargs)
        self.jit_compile = self._compile_config.config["jit_compile"] is True
        return made

    trainer.make_train_function = make_train_function


def _average_around_loss_scales() -> None:
    """Let a `LossScaleOptimizer` around a distributed optimizer, also that of `mixed_float16`, average in its place."""
    plain = keras.optimizers.LossScaleOptimizer.__init__

    @functools.wraps(plain)
    def __init__(self, inner_optimizer, *args, **kwargs):
        plain(self, inner_optimizer, *args, **kwargs)
        if isinstance(inner_optimizer, DistributedOptimizer):
            inner_optimizer.move_to(self)

    keras.optimizers.LossScaleOptimizer.__init__ = __init__


_keep_xla_out()
_average_around_loss_scales()


def _inside_branch() -> bool:
    return type(tf.compat.v1.get_default_graph()).__name__ == "CondBranchFuncGraph"
