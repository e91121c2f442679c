"""Where an epoch goes on after ranks have left or joined: one process, plain Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hpc_train.parallel.horovod_names.elastic_callbacks import Progress, pass_over, start_of

STEPS = 8


class Records(keras.Model):
    """Takes no step; keeps the number in each batch."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.build((None, 1))

    def call(self, x):
        return x

    def train_step(self, data):
        number = keras.ops.max(data[0])
        self.seen.append(int(number))
        return {"loss": number}


class Start(keras.callbacks.Callback):
    """Starts the first epoch after `batches`; keeps the indices of the batches."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches
        self.indices = []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:
            pass_over(self.model, self.batches)

    def on_train_batch_begin(self, batch, logs=None):
        self.indices.append(batch)


def numbers():
    return tf.data.Dataset.from_tensor_slices(np.arange(STEPS, dtype="float32")[:, None, None]).map(lambda x: (x, x))


def generated():
    spec = tf.TensorSpec((1, 1), tf.float32)
    return tf.data.Dataset.from_generator(lambda: iter(numbers()), output_signature=(spec, spec))


def arrays():
    return np.arange(STEPS, dtype="float32")[:, None]


DATA = {
    "a data set of known length": lambda: {"x": numbers()},
    "as long as the epoch": lambda: {"x": numbers(), "steps_per_epoch": STEPS},
    "repeated": lambda: {"x": numbers().repeat(), "steps_per_epoch": STEPS},
    "of unknown length": lambda: {"x": generated()},
    "arrays": lambda: {"x": arrays(), "y": arrays(), "batch_size": 1, "shuffle": False},
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("done", [0, 3, STEPS])
def test_the_first_epoch_goes_on_and_the_next_ones_are_whole(kind, done):
    model, start = Records(), Start(done)
    model.compile(run_eagerly=True)
    model.fit(**DATA[kind](), epochs=3, callbacks=[start], verbose=0)
    expected = [*range(done, STEPS), *range(STEPS), *range(STEPS)]
    assert model.seen == expected
    if kind != "of unknown length":  # there Keras begins a batch before it finds that there is none
        assert start.indices == expected


@pytest.mark.parametrize("done", [2, 6])
def test_several_steps_an_execution(done):
    model, start = Records(), Start(done)
    model.compile(run_eagerly=True, steps_per_execution=2)
    model.fit(numbers().repeat(), steps_per_epoch=STEPS, epochs=2, callbacks=[start], verbose=0)
    assert model.seen == [*range(done, STEPS), *range(STEPS)]


def test_an_epoch_of_another_length_goes_on_at_the_same_fraction():
    assert start_of(100, Progress(250, 2), Progress(125, 4)) == (50, "")
    assert start_of(4, Progress(12, 2), Progress(12, 3)) == (4, "")
    begin, said = start_of(100, Progress(250, 2), Progress(166, 3))
    assert begin == 66
    assert "66.4" in said
    assert "0.4" in said


def test_what_cannot_be_exact_is_said():
    begin, said = start_of(5, Progress(None, 2), Progress(None, 3))
    assert begin == 5
    assert "may be repeated or left out" in said
    assert start_of(5, Progress(None, 2), Progress(None, 2)) == (5, "")
    begin, said = start_of(6, Progress(12, 2), Progress(8, 3), per_execution=4)
    assert begin == 4
    assert said == ""
    assert start_of(9, Progress(12, 2), Progress(8, 3), per_execution=4)[0] == 4
