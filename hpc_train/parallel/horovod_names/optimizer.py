"""`hvd.DistributedOptimizer` and `hvd.PartialDistributedOptimizer`, with Horovod's options."""

import inspect

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel import wire
from hpc_train.parallel.horovod_names.passes import Passes, counting_updates
from hpc_train.parallel.horovod_names.reduction import Reduction, key
from hpc_train.parallel.horovod_names.words import CallableList
from hpc_train.parallel.optimizer import DistributedOptimizer as Core
from hpc_train.parallel.optimizer import keras_optimizer
from hpc_train.parallel.world import World


class HorovodOptimizer(Core):
    """`parallel.DistributedOptimizer` with the options of `hvd.DistributedOptimizer`, which makes it."""

    def __new__(cls, optimizer, name: str | None, **settings):
        return cls._distributed(optimizer, settings, name)

    @classmethod
    def _distributed(cls, optimizer, settings: dict, name: str | None = None, more: dict | None = None):
        more = dict(more or {})
        more["update_step"] = _update_step(type(optimizer).update_step)
        made = super()._distributed(optimizer, settings, name, more)
        state = made._state
        state.averaged, state.updating, state.applying, state.apart = [], False, False, set()
        state.passes = Passes(settings["passes"], settings["average_passes"]) if settings["passes"] > 1 else None
        if state.passes:
            counting_updates(made, settings["passes"])
        return made

    @property
    def _agg_helper(self):
        return self._state.passes

    def register_local_var(self, var) -> None:
        """Keep the gradient of this variable on its rank."""
        self.rules.local.add(key(var))

    @property
    def variables(self):
        return CallableList(super().variables)

    @property
    def iterations(self):
        steps = super().iterations
        passes = self._state.passes
        # Rules such as Adam's count updates; users, and schedules of the rate, count batches.
        return keras.ops.floor_divide(steps, passes.number) if passes and self._state.updating else steps

    def keep_apart(self, variables) -> None:
        """Expect these variables to differ between ranks, though their gradients are averaged."""
        self._state.apart |= {key(variable) for variable in variables}

    def _check_first_steps(self, weights: list, grads: list) -> None:
        rules = self.rules
        if rules.process_set.process_set_id == 0:
            apart = rules.local | self._state.apart
            chosen = [(w, g) for w, g in zip(weights, grads, strict=True) if key(w) not in apart]
            super()._check_first_steps([w for w, _ in chosen], [g for _, g in chosen])

    def average(self, grads: list, weights: list | None = None) -> list:
        return self.rules.reduce(grads, weights, self._wire_name)

    def apply(self, grads, trainable_variables=None):
        """Reduce `grads` and apply them: every one, or with `backward_passes_per_step` every n-th time their sums."""
        self._state.applying = True
        try:
            self._apply(list(grads), trainable_variables)
        finally:
            self._state.applying = False

    def _apply(self, grads: list, trainable_variables) -> None:
        state = self._state
        reduced, state.averaged = state.averaged, []
        done = bool(reduced) and all(any(g is r for r in reduced) for g in grads if g is not None)
        if reduced and not done and (state.passes or self.rules.op == hvd.Sum):
            # A mean of equal means is the same mean; these would count several times.
            raise ValueError(
                "the gradients of compute_gradients were changed before apply_gradients, which would reduce them once "
                "more: give it skip_gradients_aggregation=True"
            )
        if not (done or state.passes) or state.collected is not None:
            super().apply(grads, trainable_variables)
            return
        if not grads:
            return
        self._check_place()
        weights = list(trainable_variables) if trainable_variables is not None else self._trainable_variables
        self.build_for(weights)
        if not done:
            grads = state.passes.add(grads, weights, self.average)
        if not state.passes:
            self._apply_plain(grads, weights)
            return
        state.updating = True
        try:
            state.passes.every_nth(lambda: self._apply_plain(grads, weights), self._count_pass)
        finally:
            state.updating = False

    def _apply_plain(self, grads: list, weights: list) -> None:
        super(Core, self).apply(grads, weights)

    def _count_pass(self) -> None:
        optimizer = self
        while hasattr(optimizer, "inner_optimizer"):
            optimizer = optimizer.inner_optimizer
        optimizer._iterations.assign_add(1)

    def apply_gradients(
        self, grads_and_vars, name=None, experimental_aggregate_gradients=True, skip_gradients_aggregation=False
    ):
        """As in Keras 2: without aggregation, the gradients are applied as they are."""
        pairs = list(grads_and_vars)
        if skip_gradients_aggregation or not experimental_aggregate_gradients:
            self._state.averaged = [grad for grad, _ in pairs if grad is not None]
        return super().apply_gradients(pairs)

    def compute_gradients(self, loss, var_list, grad_loss=None, tape=None):
        """Gradients of `loss`, reduced over the ranks, with their variables; `apply_gradients` takes them as they are.

        Args:
            loss: a function without arguments, or a tensor computed under `tape`.
            var_list: the variables.
            grad_loss: gradient of something with regard to the loss, or None.
            tape: a `tf.GradientTape`; a function makes its own.
        """
        if callable(loss):
            with tape or tf.GradientTape() as tape:
                tape.watch([getattr(v, "value", v) if isinstance(v, keras.Variable) else v for v in var_list])
                loss = loss()
        elif tape is None:
            raise ValueError("a loss that is a tensor needs the tape that it was computed under: give tape=")
        return list(zip(self._reduced(tape.gradient(loss, var_list, grad_loss), var_list), var_list, strict=True))

    def _compute_gradients(self, loss, var_list, grad_loss=None, tape=None):
        return self.compute_gradients(loss, var_list, grad_loss, tape)

    def get_gradients(self, loss, params):
        """Gradients by the optimizer's own `get_gradients`, which Keras 3 no longer has, reduced over the ranks."""
        if not hasattr(super(), "get_gradients"):
            raise UserError("optimizers of Keras 3 have no get_gradients: compute gradients under a tf.GradientTape")
        return self._reduced(super().get_gradients(loss, params), params)

    def _reduced(self, grads: list, weights: list) -> list:
        passes = self._state.passes
        reduced = passes.add(grads, weights, self.average) if passes else self.average(grads, weights)
        self._state.averaged = [grad for grad in reduced if grad is not None]
        return reduced


def _update_step(plain):
    """The optimizer's `update_step`, which nothing but `apply` may call: its gradients would be this rank's own."""
    # Optimizers of one's own for Keras 2.11 to 2.15 take no learning rate here.
    old = len(inspect.signature(plain).parameters) == 3

    def update_step(self, gradient, variable, learning_rate=None):
        if not self._state.applying:
            raise UserError(
                f"{type(self).__name__}.update_step is called directly, and would use this rank's gradient alone: call "
                "apply_gradients, which averages first"
            ).agreed()
        return plain(self, gradient, variable) if old else plain(self, gradient, variable, learning_rate)

    return update_step


def DistributedOptimizer(
    optimizer,
    name=None,
    device_dense="",
    device_sparse="",
    compression=hvd.Compression.none,
    sparse_as_dense=False,
    gradient_predivide_factor=1.0,
    op=hvd.Average,
    backward_passes_per_step=1,
    average_aggregated_gradients=False,
    num_groups=0,
    groups=None,
    process_set=hvd.global_process_set,
    scale_local_gradients=True,
):
    """Make a Keras optimizer reduce its gradients over the ranks; returns that optimizer.

    Args:
        optimizer: a Keras optimizer, or its name.
        name: a new name for it.
        device_dense: device on which dense gradients are reduced.
        device_sparse: device on which sparse gradients are gathered.
        compression: `hvd.Compression.none`, `hvd.Compression.fp16`, or a class with `compress` and `decompress`.
        sparse_as_dense: make sparse gradients dense before they are reduced.
        gradient_predivide_factor: with `hvd.Average`, divide by this before the sum, and by the rest after it.
        op: `hvd.Average`, `hvd.Sum` or `hvd.Adasum`.
        backward_passes_per_step: add up the gradients of this many batches before they are reduced and applied.
        average_aggregated_gradients: divide these sums by their number.
        num_groups: old name of `groups`.
        groups: number of groups in which gradients travel, or lists of variables that travel together.
        process_set: the ranks among which gradients are reduced; other ranks keep theirs.
        scale_local_gradients: divide gradients of local variables by the number of ranks.

    Raises:
        ValueError: options that do not go together.
        UserError: what is given is no Keras optimizer, or is wrapped already.
    """
    if backward_passes_per_step < 1:
        raise ValueError(f"backward_passes_per_step must be 1 or more, not {backward_passes_per_step}")
    groups = groups if groups is not None else (num_groups or None)
    rules = Reduction(
        op=op,
        compression=compression,
        sparse_as_dense=sparse_as_dense,
        gradient_predivide_factor=gradient_predivide_factor,
        groups=groups,
        process_set=process_set,
        scale_local_gradients=scale_local_gradients,
        device_dense=device_dense,
        device_sparse=device_sparse,
    )
    if op == hvd.Adasum:
        _check_adasum(average_aggregated_gradients, compression, process_set)
    passes = {"passes": backward_passes_per_step, "average_passes": average_aggregated_gradients}
    return HorovodOptimizer(keras_optimizer(optimizer), name, lag=0, rules=rules, process_set=process_set, **passes)


def _check_adasum(average_passes: bool, compression, process_set) -> None:
    if average_passes:
        raise ValueError("op=hvd.Adasum does not go with average_aggregated_gradients=True")
    if compression is not hvd.Compression.none:
        raise ValueError("op=hvd.Adasum takes gradients as they are, without compression")
    if process_set.process_set_id != 0:
        raise ValueError("op=hvd.Adasum combines all ranks, not a process set")
    wire.check_adasum(World(size=hvd.size()), "op=hvd.Adasum")


def PartialDistributedOptimizer(optimizer, *args, local_layers=None, **kwargs):
    """`DistributedOptimizer`, with the gradients of `local_layers` (a layer or a list of them) kept on their rank."""
    layers = [local_layers] if isinstance(local_layers, keras.layers.Layer) else list(local_layers or ())
    if not all(isinstance(layer, keras.layers.Layer) for layer in layers):
        raise ValueError("local_layers must be Keras layers")
    made = DistributedOptimizer(optimizer, *args, **kwargs)
    for layer in layers:
        for variable in layer.trainable_weights:
            made.register_local_var(variable)
    return made
