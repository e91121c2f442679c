"""What is written for TensorBoard."""

import keras
import numpy as np
import pytest
from profiles import steps_marked
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpc_train.tracking.tensorboard import TensorBoard


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(1)

    def call(self, inputs):
        return self.out(inputs["x"])


def functional():
    x, y = keras.Input((3,), name="x"), keras.Input((2,), name="y")
    return keras.Model({"x": x, "y": y}, keras.layers.Dense(1, name="sum")(keras.layers.Concatenate()([x, y])))


@pytest.fixture
def fit():
    """A function that trains a model for an epoch of 4 steps with a callback."""

    def fit(model, callback, epochs=1):
        model.compile("sgd", "mse")
        inputs = {"x": np.ones((8, 3), "float32"), "y": np.ones((8, 2), "float32")}
        model.fit(inputs, np.ones((8, 1)), 2, epochs, 0, [callback])

    return fit


def graph(folder):
    return EventAccumulator(str(folder / "train")).Reload().Graph()


def test_the_graph_is_that_of_the_network_alone(tmp_path, fit):
    fit(functional(), TensorBoard(tmp_path))
    names = [node.name for node in graph(tmp_path).node]
    assert any("/sum" in name for name in names)
    assert not any("gradient" in name for name in names)


def test_a_stack_of_layers_has_a_graph_too(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="sum")])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0, callbacks=[TensorBoard(tmp_path)])
    assert any("/sum" in node.name for node in graph(tmp_path).node)


def test_a_network_that_cannot_be_drawn_is_trained_and_a_line_says_so(tmp_path, capsys):
    class Untraceable(keras.layers.Layer):
        def call(self, inputs, training=None):
            if training is False:
                raise TypeError("only for training")
            return inputs

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1), Untraceable()])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0, callbacks=[TensorBoard(tmp_path)])
    assert "no graph for TensorBoard: TypeError: " in capsys.readouterr().out


def test_a_model_without_known_inputs_has_no_graph_and_is_trained(tmp_path, fit):
    fit(Subclassed(), TensorBoard(tmp_path))
    with pytest.raises(ValueError, match="no graph"):
        graph(tmp_path)


def test_a_profile_counts_the_steps_of_all_fits_and_ends_with_the_training(tmp_path, fit):
    model, callback = functional(), TensorBoard(tmp_path, profile=(3, 99))
    fit(model, callback)
    (first,) = tmp_path.rglob("*.xplane.pb")
    assert steps_marked(first) == [3, 4]
    fit(model, callback)
    assert list(tmp_path.rglob("*.xplane.pb")) == [first]


def test_where_something_else_profiles_a_line_says_so(tmp_path, fit, capsys):
    import tensorflow as tf

    tf.profiler.experimental.start("")
    try:
        fit(functional(), TensorBoard(tmp_path, profile=(1, 2)))
    finally:
        tf.profiler.experimental.stop(save=False)
    assert "no profile: " in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.xplane.pb"))
