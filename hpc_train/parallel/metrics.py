"""Metrics that are exact over the ranks: their states are added up before the result is computed."""

import keras
import numpy as np

from hpc_train.parallel.collectives import sum_arrays


def states(model) -> list[np.ndarray]:
    """This rank's metric states: the model's loss tracker and every metric, each state an array."""
    return [np.asarray(variable) for metric in model.metrics for variable in metric.variables]


def assign_states(model, values) -> None:
    """Set the metric states, in the order of `states`."""
    variables = [variable for metric in model.metrics for variable in metric.variables]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.asarray(value).astype(variable.dtype))


def summed_results(model, local: list[np.ndarray], name: str) -> dict[str, float]:
    """The model's metrics over all ranks' samples, from each rank's `local` states. Collective."""
    return _results(model, sum_arrays(local, f"hpc_train.metrics.{name}"))


def _results(model, sums: list[np.ndarray]) -> dict[str, float]:
    kept = states(model)
    assign_states(model, sums)
    results: dict[str, float] = {}
    for key, value in model.get_metrics_result().items():
        # A metric may give several numbers, by name.
        named = value if isinstance(value, dict) else {key: value}
        results |= {name: float(number) for name, number in named.items()}
    assign_states(model, kept)
    return results


class ExactMetrics(keras.callbacks.Callback):
    """Report, for training and validation, metrics over the samples of all ranks.

    It overwrites the local values in an epoch's logs. So callbacks that decide by them (early stopping, best model,
    rate on a plateau) decide the same on every rank when they come after this one. It adds up metric states, which is
    right for every Keras metric: means, counts, confusion matrices, histograms.

    Args:
        validation_steps: the number of this rank's validation steps that hold real samples; later ones do not count,
            they only make the number of steps equal on all ranks. None counts every step.
    """

    def __init__(self, validation_steps: int | None = None):
        super().__init__()
        self.validation_steps = validation_steps
        self.results: dict[str, float] = {}
        self._training: dict[str, float] | None = None
        self._in_epoch = False
        self._local: list[np.ndarray] | None = None

    def take(self, sums: list[np.ndarray], results: dict[str, float]) -> None:
        """Report an epoch that has begun but makes no steps here: an earlier process trained it.

        Args:
            sums: sums over the ranks of the metric states after the epoch's last step.
            results: of the epoch's validation.
        """
        self._training, self.results = _results(self.model, sums), results

    def on_epoch_begin(self, epoch, logs=None):
        self._training, self.results, self._in_epoch = None, {}, True

    def on_test_begin(self, logs=None):
        # Validation inside an epoch resets the metrics: this is the last moment to read those of training.
        if self._in_epoch and self._training is None:
            self._training = summed_results(self.model, states(self.model), "train")
        self._local = None

    def on_test_batch_end(self, batch, logs=None):
        if self.validation_steps is not None and batch + 1 == self.validation_steps:
            self._local = states(self.model)

    def on_test_end(self, logs=None):
        if self.validation_steps is None:
            local = states(self.model)
        else:
            local = self._local or [np.zeros_like(state) for state in states(self.model)]
        self.results = summed_results(self.model, local, "validation")

    def on_epoch_end(self, epoch, logs=None):
        if self._training is None:
            self._training = summed_results(self.model, states(self.model), "train")
        self._in_epoch = False
        if logs is not None:
            logs.update(self._training)
            logs.update({f"val_{name}": value for name, value in self.results.items()})


def evaluate(model, data, validation_steps: int | None = None, callbacks=(), **kwargs) -> dict[str, float]:
    """`model.evaluate` over the samples of all ranks. Collective.

    Args:
        model: compiled.
        data: this rank's share, as `model.evaluate` takes it.
        validation_steps: see `ExactMetrics`.
        callbacks: further callbacks.
        **kwargs: passed to `model.evaluate`.

    Returns:
        Each metric's exact value, the same on every rank.
    """
    exact = ExactMetrics(validation_steps)
    model.evaluate(data, callbacks=[exact, *callbacks], verbose=0, **kwargs)
    return exact.results
