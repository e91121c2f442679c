"""Run on N ranks by test_horovod_names.py: rates and momenta batch by batch, against the formulas of Horovod's docs."""

import horovod.keras as hvd
from checks import write_outcomes

hvd.init()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from hpc_train import parallel  # noqa: E402
from hpc_train.errors import UserError  # noqa: E402
from hpc_train.parallel import World  # noqa: E402

RANK, SIZE = hvd.rank(), hvd.size()
STEPS, EPOCHS, RATE = 4, 4, 0.2
# One input, one output, no bias: the gradient of the squared error is the same number in each batch.
INPUTS = np.ones((STEPS, 1), "float32")


class Seen(keras.callbacks.Callback):
    """The rate in each batch."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(np.asarray(self.model.optimizer.learning_rate)))


def line(optimizer):
    """A model whose loss is its weight, so that the gradient is always 1."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(hvd.DistributedOptimizer(optimizer), lambda true, predicted: keras.ops.mean(predicted))
    return model


def rates(callbacks, optimizer=None, epochs=EPOCHS):
    model, seen = line(optimizer or keras.optimizers.SGD(RATE)), Seen()
    start = hvd.callbacks.BroadcastGlobalVariablesCallback(0)
    history = model.fit(INPUTS, INPUTS, 1, epochs, verbose=0, callbacks=[start, *callbacks, seen])
    return seen.rates, history.history, float(model.get_weights()[0][0, 0])


def warming(warmup_epochs, rate=RATE):
    """Rate of each batch: rate / size at the start, and the rate in the warm-up's last batch."""
    whole = np.full(EPOCHS * STEPS, rate)
    for batch in range(warmup_epochs * STEPS):
        epoch = batch // STEPS + (batch % STEPS + 1) / STEPS
        whole[batch] = rate / SIZE * (epoch * (SIZE - 1) / warmup_epochs + 1)
    return whole


def a_warm_up_raises_the_rate_in_every_batch():
    warm_up = hvd.callbacks.LearningRateWarmupCallback
    for callback in (
        warm_up(initial_lr=RATE, warmup_epochs=3),
        warm_up(RATE, 3, True, STEPS, 1),
        warm_up(lr=RATE, warmup_epochs=3, steps_per_epoch=STEPS),
        # As before Horovod 0.20: the optimizer's rate.
        warm_up(warmup_epochs=3, verbose=1),
    ):
        got, history, _ = rates([callback])
        np.testing.assert_allclose(got, warming(3), rtol=1e-5)
        np.testing.assert_allclose(history["lr"], warming(3)[STEPS - 1 :: STEPS], rtol=1e-5)


def schedules_multiply_the_initial_rate():
    schedule = hvd.callbacks.LearningRateScheduleCallback
    got = rates([schedule(RATE, multiplier=lambda epoch: 1 / (1 + epoch))])[0]
    np.testing.assert_allclose(got, RATE / (1 + np.repeat(range(EPOCHS), STEPS)), rtol=1e-5)
    got = rates([schedule(RATE, multiplier=lambda epoch: 1 / (1 + epoch), staircase=False)])[0]
    np.testing.assert_allclose(got, RATE / (1 + np.arange(EPOCHS * STEPS) / STEPS), rtol=1e-5)
    # A number is the decay of an epoch after the first.
    got = rates([schedule(RATE, 0.5, start_epoch=1)])[0]
    np.testing.assert_allclose(got, RATE * np.repeat([1, 1, 0.5, 0.25], STEPS), rtol=1e-5)


def a_warm_up_and_stairs_share_the_training():
    schedule = hvd.callbacks.LearningRateScheduleCallback
    stairs = [
        schedule(RATE, multiplier=1e-1, start_epoch=2, end_epoch=3),
        schedule(RATE, multiplier=1e-2, start_epoch=3),
    ]
    stairs[0].multiplier, stairs[1].multiplier = lambda epoch: 1e-1, lambda epoch: 1e-2
    got = rates([hvd.callbacks.LearningRateWarmupCallback(RATE, 2), *stairs])[0]
    want = warming(2)
    want[2 * STEPS : 3 * STEPS] *= 1e-1
    want[3 * STEPS :] *= 1e-2
    np.testing.assert_allclose(got, want, rtol=1e-5)


def momentum_is_corrected_as_goyal_et_al_do():
    for nesterov in (False, True):
        for corrected in (True, False):
            warm_up = hvd.callbacks.LearningRateWarmupCallback(RATE, 3, momentum_correction=corrected)
            got = rates([warm_up], keras.optimizers.SGD(RATE, momentum=0.9, nesterov=nesterov))[2]
            weight, velocity, before = 0.0, 0.0, RATE
            for rate in warming(3):
                momentum = 0.9 * (rate / before if corrected else 1)
                velocity = momentum * velocity - rate
                weight += momentum * velocity - rate if nesterov else velocity
                before = rate
            np.testing.assert_allclose(got, weight, rtol=1e-4, err_msg=f"{nesterov} {corrected}")


def callbacks_that_lower_the_rate_go_on_after_the_warm_up():
    for order in ((0, 1, 2), (2, 1, 0)):
        callbacks = (
            hvd.callbacks.MetricAverageCallback(),
            hvd.callbacks.LearningRateWarmupCallback(RATE, 1),
            # The loss falls without end, by less than min_delta: a plateau from the start.
            keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1e6, min_lr=0),
        )
        got = rates([callbacks[i] for i in order])[0]
        np.testing.assert_allclose(got[:STEPS], warming(1)[:STEPS], rtol=1e-5)
        np.testing.assert_allclose(got[STEPS:], RATE * np.repeat([1, 0.5, 0.25], STEPS), rtol=1e-5)


def keras_waits_for_no_logs_within_an_epoch():
    ours = hvd.callbacks
    for kind in (
        ours.BroadcastGlobalVariablesCallback,
        ours.MetricAverageCallback,
        ours.LearningRateWarmupCallback,
        ours.LearningRateScheduleCallback,
        *map(type, parallel.callbacks()),
    ):
        assert kind.on_train_batch_end is keras.callbacks.Callback.on_train_batch_end, kind


def rates_that_cannot_be_set_are_refused():
    decay = keras.optimizers.schedules.ExponentialDecay(RATE, 10, 0.9)
    with pytest.raises(UserError, match="has a schedule"):
        rates([hvd.callbacks.LearningRateWarmupCallback(RATE, 2)], keras.optimizers.SGD(decay))
    with pytest.raises(UserError, match="momentum_correction=False"):
        rates([hvd.callbacks.LearningRateWarmupCallback(RATE, 2)], keras.optimizers.RMSprop(RATE, momentum=0.9))
    with pytest.raises(ValueError, match="multiplier"):
        hvd.callbacks.LearningRateScheduleCallback(RATE)


CHECKS = [value for name, value in list(globals().items()) if callable(value) and name.count("_") >= 3]


if __name__ == "__main__":
    write_outcomes(CHECKS, World(rank=RANK, size=SIZE))
    hvd.shutdown()
