"""`hvd.callbacks`: Horovod's Keras callbacks, over those of `hpc_train.parallel`."""

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.parallel import wire
from hpc_train.parallel.horovod_names.optimizer import HorovodOptimizer
from hpc_train.parallel.horovod_names.reduction import key
from hpc_train.parallel.horovod_names.words import once
from hpc_train.parallel.metrics import ExactMetrics
from hpc_train.parallel.optimizer import DistributedOptimizer
from hpc_train.parallel.replicas import check_replicas
from hpc_train.parallel.sync import Broadcast, average_local_state
from hpc_train.parallel.sync.stops import stop_together
from hpc_train.parallel.variables import optimizers

# Batches between two checks that the ranks' weights are equal.
_CHECK_EVERY = 500
_STRAYS = (
    "gradients are not averaged (the step does not call the optimizer's apply or apply_gradients), or code changes "
    "weights on one rank alone; weights that a rank keeps for itself go to "
    "BroadcastGlobalVariablesCallback(0, local_variables=[...])"
)


class MetricAverageCallback(ExactMetrics):
    """Metrics of an epoch over the samples of all ranks, exact also where ranks have different shares.

    It comes before callbacks that decide by metrics.

    Args:
        device: Horovod's; metrics are small, and travel on the CPU.
    """

    def __init__(self, device=""):
        super().__init__()
        self.device = device


class LearningRateScheduleCallback(keras.callbacks.Callback):
    """From `start_epoch` to before `end_epoch` the rate is `initial_lr` times `multiplier`.

    Args:
        initial_lr: rate at the start; None takes the optimizer's when training begins.
        multiplier: a function of the epoch, which counts parts of an epoch without `staircase`; or a number m, for
            m ** (epoch - start_epoch).
        start_epoch: first epoch.
        end_epoch: first epoch after it; None for no end.
        staircase: change the rate at epochs' first batches only, not in every batch.
        momentum_correction: multiply SGD's momentum by the change of the rate, for one batch (Goyal et al. 2017,
            section 2.2, remark 2).
        steps_per_epoch: batches of an epoch; None takes what `fit` says.
    """

    def __init__(
        self,
        initial_lr=None,
        multiplier=None,
        start_epoch=0,
        end_epoch=None,
        staircase=True,
        momentum_correction=True,
        steps_per_epoch=None,
        lr=None,
    ):
        super().__init__()
        if callable(initial_lr) and multiplier is None:
            # Before Horovod 0.20 the multiplier was the first argument.
            initial_lr, multiplier = None, initial_lr
        if multiplier is None:
            raise ValueError(f"{type(self).__name__} needs a multiplier")
        self.initial_lr = initial_lr if initial_lr is not None else lr
        self.multiplier = multiplier if callable(multiplier) else lambda epoch: multiplier ** (epoch - start_epoch)
        self.start_epoch, self.end_epoch, self.staircase = start_epoch, end_epoch, staircase
        self.momentum_correction, self.steps_per_epoch = momentum_correction, steps_per_epoch
        self._momentum: Momentum | None = None

    def on_train_begin(self, logs=None):
        if self.initial_lr is None:
            self.initial_lr = self._rate()
            once(f"note: {type(self).__name__} without initial_lr takes the optimizer's rate, {self.initial_lr:g}")
        if not (self.staircase or self.steps_per_epoch):
            self.steps_per_epoch = self.params.get("steps")
            if not self.steps_per_epoch:
                raise UserError(
                    f"{type(self).__name__} cannot tell how many batches an epoch has: give it steps_per_epoch"
                ).agreed()
        if self.momentum_correction:
            self._momentum = Momentum.of(self.model.optimizer, type(self).__name__)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    # Nothing here acts at the end of a batch: Keras would then wait for each batch's logs.
    def on_train_batch_begin(self, batch, logs=None):
        if self._momentum:
            self._momentum.begin((self.epoch, batch))
        ended = self.end_epoch is not None and self.epoch >= self.end_epoch
        if self.epoch < self.start_epoch or ended or (self.staircase and batch):
            return
        before = self._rate() if self._momentum else 0.0
        after = self.initial_lr * self.multiplier(self.epoch + (0 if self.staircase else batch / self.steps_per_epoch))
        try:
            self.model.optimizer.learning_rate = after
        except TypeError:
            raise UserError(
                f"{type(self).__name__} cannot set the rate of an optimizer that has a schedule: give the optimizer a "
                "number, or leave out the callback"
            ).agreed() from None
        if self._momentum and before:
            self._momentum.multiply(after / before)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["lr"] = self._rate()

    def on_train_end(self, logs=None):
        if self._momentum:
            self._momentum.begin(None)

    def _rate(self) -> float:
        return float(np.asarray(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))


class Momentum:
    """SGD's momentum as a variable while training runs: Keras compiles the number in."""

    def __init__(self, optimizer):
        self.optimizer, self.value = optimizer, float(optimizer.momentum)
        self.variable = tf.Variable(self.value, trainable=False, dtype="float32")
        self._factor = 1.0
        self._batch: tuple[int, int] | None = None
        optimizer._horovod_momentum = self
        optimizer.momentum = Number(self.value, self.variable)

    @classmethod
    def of(cls, optimizer, callback: str) -> "Momentum | None":
        """The momentum of `optimizer`; None where it has none.

        Raises:
            UserError: its momentum cannot be changed while it trains.
        """
        while hasattr(optimizer, "inner_optimizer"):
            optimizer = optimizer.inner_optimizer
        if not getattr(optimizer, "momentum", 0):
            return None
        if not isinstance(optimizer, keras.optimizers.SGD):
            raise UserError(
                f"{callback}: the momentum of {type(optimizer).__name__} is fixed in Keras 3, and cannot be corrected: "
                "give the callback momentum_correction=False"
            ).agreed()
        return getattr(optimizer, "_horovod_momentum", None) or cls(optimizer)

    def begin(self, batch: tuple[int, int] | None) -> None:
        """End the correction of the batch before; several callbacks may say that one batch begins."""
        if batch != self._batch:
            self._batch = batch
            self.multiply(1.0)

    def multiply(self, factor: float) -> None:
        """Correct the momentum for this batch."""
        if factor != self._factor:
            self._factor = factor
            self.variable.assign(self.value * factor)


class Number(float):
    """A number for Keras's checks and files, and a variable for TensorFlow's operations."""

    variable: tf.Variable

    def __new__(cls, value: float, variable):
        made = super().__new__(cls, value)
        made.variable = variable
        return made

    def __tf_tensor__(self, dtype=None, name=None):
        return tf.cast(self.variable, dtype or self.variable.dtype)


class LearningRateWarmupCallback(LearningRateScheduleCallback):
    """Raise the rate from `initial_lr` / size to `initial_lr` in `warmup_epochs` (Goyal et al. 2017, section 2.2).

    Args:
        initial_lr: rate after the warm-up; None takes the optimizer's when training begins.
        warmup_epochs: its length.
        momentum_correction: see `LearningRateScheduleCallback`.
        steps_per_epoch: the same.
        verbose: 1 prints a line at its end.
        lr: old name of `initial_lr`.
    """

    def __init__(
        self,
        initial_lr=None,
        warmup_epochs=5,
        momentum_correction=True,
        steps_per_epoch=None,
        verbose=0,
        lr=None,
    ):
        def multiplier(epoch):
            # One batch later, so that the last batch of the warm-up reaches the rate.
            done = (epoch + 1 / self.steps_per_epoch) / warmup_epochs
            return (done * (hvd.size() - 1) + 1) / hvd.size()

        super().__init__(initial_lr, multiplier, 0, warmup_epochs, False, momentum_correction, steps_per_epoch, lr)
        self.verbose = verbose

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self.verbose and epoch + 1 == self.end_epoch and hvd.rank() == 0:
            say(f"\nEpoch {epoch + 1}: finished gradual learning rate warmup to {self._rate():g}.")


class BroadcastGlobalVariablesCallback(Broadcast):
    """Start from one rank's weights and optimizer state, and keep the ranks together.

    All ranks stop at the same step, and ranks with different numbers of batches are named (`sync.stops`). After the
    first step, then every 500 steps, and at the end it checks that all ranks still have the same weights.

    Args:
        root_rank: the rank.
        device: Horovod's; broadcasts run where the variables are.
        local_variables: variables that each rank keeps for itself: one, or a list.
    """

    def __init__(self, root_rank, device="", local_variables=None):
        local = [local_variables] if _is_variable(local_variables) else list(local_variables or ())
        if not all(_is_variable(variable) for variable in local):
            raise ValueError("local_variables must be variables")
        super().__init__(root_rank, local)
        self.device = device
        self._batches = 0

    def set_model(self, model):
        super().set_model(model)
        if not wire.elastic():
            stop_together([self], model)

    def _start(self) -> None:
        super()._start()
        for optimizer in optimizers(self.model):
            if isinstance(optimizer, HorovodOptimizer):
                optimizer.keep_apart(self.local)

    def check_optimizers(self) -> None:
        # A training step of one's own may average by hvd.DistributedGradientTape.
        model = self.model
        averages = any(isinstance(optimizer, DistributedOptimizer) for optimizer in optimizers(model))
        if averages or not model.trainable_variables or type(model).train_step is not keras.Model.train_step:
            return
        raise UserError(
            f"the model is compiled with a plain {type(model.optimizer).__name__}, which averages no gradients over "
            "ranks: compile it with hvd.DistributedOptimizer(...); a model from a file is loaded with hvd.load_model"
        ).agreed()

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        # Ranks that join an elastic job have made no steps yet.
        self._batches = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self._batches % _CHECK_EVERY == 1:
            self.check(f"after batch {self._batches}")
        self._batches += 1

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        average_local_state(self.model)
        if self._batches:
            self.check("after the last batch")

    def check(self, when: str) -> None:
        """Check that the weights that are not local are equal on all ranks, or on those of the optimizer's process set.

        Collective.

        Raises:
            UserError: on every rank, naming the weights that differ.
        """
        averaging = [o for o in optimizers(self.model) if isinstance(o, HorovodOptimizer)]
        local = {key(variable) for variable in self.local}.union(*(o.rules.local for o in averaging))
        ranks = {o.process_set.process_set_id: o.process_set for o in averaging}
        if len(ranks) > 1:
            # Each set trains weights of its own, and which those are is the model's business.
            return
        shared = [v for v in self.model.trainable_variables if key(v) not in local]
        check_replicas(shared, when, next(iter(ranks.values()), hvd.global_process_set), _STRAYS)

    def register_local_var(self, var) -> None:
        """Let each rank keep this variable for itself."""
        self.local.append(var)


def _is_variable(value) -> bool:
    return isinstance(value, (tf.Variable, keras.Variable))


class BestModelCheckpoint(keras.callbacks.ModelCheckpoint):
    """Of Horovod on Spark, where the estimator sets the file."""

    def __init__(self, *args, **kwargs):
        raise UserError(
            "BestModelCheckpoint belongs to Horovod on Spark, which is not built here: use "
            "keras.callbacks.ModelCheckpoint(FILE, save_best_only=True) on rank 0"
        ).agreed()
