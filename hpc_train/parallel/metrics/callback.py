"""The callback that reports metrics over all ranks, and evaluation with it."""

from collections.abc import Callable

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hpc_train.parallel.metrics import logs as steps
from hpc_train.parallel.metrics.exact import exact_logs, results_of
from hpc_train.parallel.metrics.rules import watch
from hpc_train.parallel.metrics.tracked import initial, leaves, states
from hpc_train.parallel.replicas import check_replicas
from hpc_train.parallel.saving import say_what_is_left_out
from hpc_train.parallel.variables import inference, is_seed


class ExactMetrics(keras.callbacks.Callback):
    """Report, for training and validation, metrics over the samples of all ranks.

    It overwrites the local values in an epoch's logs. So callbacks that decide by them (early stopping, best model,
    rate on a plateau) decide the same on every rank when they come after this one. What a `train_step` or `test_step`
    of the model's own returns is computed anew from the merged states of the metrics that it comes from, whatever it is
    called there. A number that comes from no metric, such as the loss of the last batch, becomes its mean over the
    ranks; rank 0 names it once.

    It merges metric states: adds up those of Keras's metrics (means, counts, confusion matrices, histograms), and those
    of other classes as `rules.rule` says.

    Args:
        validation_steps: the number of this rank's validation steps that hold real samples; later ones do not count,
            they only make the number of steps equal on all ranks. None counts every step.

    Raises:
        UserError: on every rank, before or in the first step, for a metric whose states cannot be merged; at the end of
            an epoch, for logs that are not numbers or not the same ones on all ranks.
    """

    def __init__(self, validation_steps: int | None = None):
        super().__init__()
        self.validation_steps = validation_steps
        self.results: dict = {}
        self._training: dict | None = None
        self._trained: list[np.ndarray] | None = None
        self._in_fit = self._in_epoch = False
        self._last: dict = {}
        self._counted: tuple[list[np.ndarray], dict] | None = None
        self._functions: dict[str, Callable] = {}
        self._step_logs: dict[str, dict] = {}
        self._one_step: Callable | None = None
        self._whole: Callable | None = None

    def set_model(self, model):
        super().set_model(model)
        # Before Keras traces the steps, in which these look.
        unseen, new = watch(model), steps.record(model)
        for step in ("train_step", "test_step") if unseen else new:
            setattr(model, step.replace("step", "function"), None)

    def take(self, sums: list[np.ndarray], results: dict) -> None:
        """Report an epoch that has begun but makes no steps here: an earlier process trained it.

        Args:
            sums: the metric states after the epoch's last step, merged over the ranks.
            results: of the epoch's validation.
        """
        self._training, self.results = results_of(self.model, sums), results

    def on_train_begin(self, logs=None):
        self._in_fit = True
        self._keep("train")
        if hvd.rank() == 0:
            say_what_is_left_out(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        self._training, self._trained, self.results, self._in_epoch = None, None, {}, True

    def on_test_begin(self, logs=None):
        # Validation inside an epoch resets the metrics: this is the last moment to read those of training.
        if self._in_epoch and self._trained is None:
            self._trained = states(self.model)
        self._counted = None
        self._keep("test")

    def on_test_batch_begin(self, batch, logs=None):
        last, steps_at_once = self.validation_steps, self.model.steps_per_execution
        if last is not None and batch < last < batch + steps_at_once:
            self._whole, self.model.test_function = self.model.test_function, self._up_to(last - batch, steps_at_once)

    def on_test_batch_end(self, batch, logs=None):
        if self._whole is not None:
            self.model.test_function, self._whole = self._whole, None
        elif self.validation_steps is not None and batch + 1 == self.validation_steps:
            self._count({**(logs or {}), **self._kept("test", logs or {})})

    def on_test_end(self, logs=None):
        logs = {} if logs is None else logs
        mine, weight = {**logs, **self._kept("test", logs)}, 1
        if self._counted is not None:
            local, mine = self._counted
        elif self.validation_steps == 0:
            local, weight = [begin for metric in leaves(self.model) for begin in initial(metric)], 0
        else:
            local = states(self.model)
        self.results = exact_logs(self.model, "test_step", local, mine, weight)
        logs.update(self.results)
        self._keep_no_more("test")
        if not self._in_fit:
            steps.forget(self.model)

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        validation = {f"val_{name}": value for name, value in self.results.items()}
        if self._training is None:
            local = states(self.model) if self._trained is None else self._trained
            mine = {name: value for name, value in logs.items() if name not in validation}
            self._training = exact_logs(self.model, "train_step", local, {**mine, **self._kept("train", mine)})
        self._in_epoch = False
        logs.update(self._training)
        logs.update(validation)
        self._last = dict(logs)

    def on_train_end(self, logs=None):
        if logs is not None:
            logs.update(self._last)
        self._in_fit = False
        self._keep_no_more("train")
        steps.forget(self.model)

    def _keep(self, phase: str) -> None:
        """Keep what a step of the model's own returned last: Keras replaces it where metrics have the same names."""
        name = f"{phase}_function"
        execute = getattr(self.model, name)
        if steps.recorded(self.model, f"{phase}_step") and phase not in self._functions:

            def keeping(iterator):
                self._step_logs[phase] = logs = execute(iterator)
                return logs

            self._functions[phase] = execute
            setattr(self.model, name, keeping)

    def _keep_no_more(self, phase: str) -> None:
        if phase in self._functions:
            setattr(self.model, f"{phase}_function", self._functions.pop(phase))

    def _kept(self, phase: str, logs: dict) -> dict:
        """Of `logs`, what the step itself returned last."""
        returned = self._step_logs.pop(phase, None) or {}
        return {key: value for key, value in steps.flatten(returned, f"{phase}_step").items() if key in logs}

    def _count(self, logs: dict) -> None:
        """Take what the steps so far gave as all that counts."""
        self._counted = states(self.model), logs

    def _single_steps(self, count: int) -> Callable:
        """A test function of one step, of a model that makes `count` steps at once."""
        model, whole = self.model, self.model.test_function
        model.steps_per_execution = 1
        model.make_test_function(force=True)
        single, model.test_function, model.steps_per_execution = model.test_function, whole, count
        return single

    def _up_to(self, real: int, count: int) -> Callable:
        """A test function of `count` single steps, of which the first `real` ones count."""
        model = self.model
        one_step = self._one_step = self._one_step or self._single_steps(count)

        def execute(iterator):
            logs = None
            model.steps_per_execution = 1
            try:
                for step in range(count):
                    logs = one_step(iterator)
                    if step + 1 == real:
                        self._count(logs)
            except (StopIteration, tf.errors.OutOfRangeError):
                if logs is None:
                    raise
            finally:
                model.steps_per_execution = count
            return logs

        return execute


class _EqualModels(keras.callbacks.Callback):
    """Makes sure that all ranks evaluate the same weights."""

    def on_test_begin(self, logs=None):
        self._checked = self._check()

    def on_test_end(self, logs=None):
        # A model that was not built has its weights since the first step.
        if len(inference(self.model)) != self._checked:
            self._check()

    def _check(self) -> int:
        variables = inference(self.model)
        check_replicas([v for v in variables if not is_seed(v)], "in parallel.evaluate")
        return len(variables)


def evaluate(model, data, validation_steps: int | None = None, callbacks=(), **kwargs) -> dict[str, float]:
    """`model.evaluate` over the samples of all ranks. Collective.

    Args:
        model: compiled, with the same weights on every rank.
        data: this rank's share, as `model.evaluate` takes it.
        validation_steps: see `ExactMetrics`.
        callbacks: further callbacks.
        **kwargs: passed to `model.evaluate`.

    Returns:
        Each metric's exact value, the same on every rank.

    Raises:
        UserError: on every rank, naming the variables that are not the same on all of them.
    """
    exact = ExactMetrics(validation_steps)
    model.evaluate(data, callbacks=[exact, *callbacks, _EqualModels()], verbose=0, **kwargs)
    return exact.results
