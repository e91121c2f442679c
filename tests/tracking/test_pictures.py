"""Pictures of predictions for TensorBoard."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpc_train.tracking import pictures as pictures_module
from hpc_train.tracking.pictures import Pictures, draw
from hpc_train.tracking.tensorboard import TensorBoard

IMAGES = np.arange(4 * 6 * 6, dtype="float32").reshape(4, 6, 6, 1)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_a_wrong_class_is_named_beside_the_true_one():
    logits = np.eye(3, dtype="float32")[[0, 2, 1, 1]]
    figure = draw(IMAGES, np.array([0, 2, 2, 1]), logits, 3, ["cat", "dog"])
    assert titles(figure)[:3] == ["cat", "2", "2\npredicted dog"]
    colours = [axes.title.get_color() for axes in figure.axes[:3]]
    assert colours[0] == colours[1] != colours[2]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), IMAGES[1, :, :, 0])


def test_masks_stand_beside_each_other_without_labels_that_are_no_class():
    true = np.zeros((4, 6, 6), "uint8")
    true[0, 0, 0], true[0, 1, 1] = 255, 1
    logits = np.stack([np.zeros((4, 6, 6)), np.full((4, 6, 6), -1), np.ones((4, 6, 6))], -1)
    figure = draw(IMAGES, true, logits, 2)
    assert titles(figure)[:3] == ["input", "true", "predicted"]
    assert len(figure.axes) == 2 * 3
    drawn = figure.axes[1].images[0].get_array()
    assert drawn.mask.sum() == 1
    assert (drawn[1, 1], drawn.mask[0, 0]) == (1, True)
    assert (figure.axes[2].images[0].get_array() == 2).all()


def test_numbers_are_points_and_maps_of_numbers_pictures_in_one_scale():
    (axes,) = draw(None, np.array([[1.0], [2.0], [4.0]]), np.array([[1.5], [2.0], [3.0]]), 2).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, 2])
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [1.5, 2])
    figure = draw(IMAGES, IMAGES, IMAGES / 2, 1)
    scales = [axes.images[0].get_clim() for axes in figure.axes[1:]]
    assert scales == [(0, 35), (0, 35)]


def test_several_outputs_have_no_picture_and_say_so_once(capsys):
    x = keras.Input((2,))
    model = keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(1)(x)])
    batch = np.ones((2, 2), "float32"), (np.ones((2, 1)), np.ones((2, 1)))
    pictures = Pictures(2, lambda: [batch], nullcontext)
    assert pictures.draw(model) is None
    assert pictures.draw(model) is None
    assert capsys.readouterr().out.count("no pictures of predictions") == 1


def test_small_batches_are_put_together(monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures_module, "draw", lambda *given: drawn.append(given) or draw(*given))
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    batches = [(IMAGES[place : place + 1], np.array([place % 3])) for place in range(4)]
    assert Pictures(3, lambda: iter(batches), nullcontext).draw(model).shape[-1] == 3
    ((inputs, targets, found, *_),) = drawn
    np.testing.assert_array_equal(inputs, IMAGES[:3])
    np.testing.assert_array_equal(targets, [0, 1, 2])
    np.testing.assert_allclose(found, model.predict(IMAGES[:3], verbose=0), rtol=1e-5)


@pytest.fixture
def trained():
    """A function that trains a network with dropout for two epochs, and returns its state."""

    def trained(*callbacks):
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.BatchNormalization()]
        model = keras.Sequential([keras.Input((6, 6, 1)), *layers, keras.layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        data = tf.data.Dataset.from_tensor_slices((IMAGES, [0, 1, 2, 1])).shuffle(4).batch(2)
        model.fit(data, epochs=2, verbose=0, callbacks=list(callbacks))
        return [one.numpy() for one in (*model.variables, *model.optimizer.variables)]

    return trained


def test_pictures_change_no_bit_of_the_training(tmp_path, trained):
    batch = IMAGES, np.array([0, 1, 2, 1])
    board = TensorBoard(tmp_path, pictures=Pictures(3, lambda: [batch], nullcontext))
    for ours, plain in zip(trained(board), trained(), strict=True):
        np.testing.assert_array_equal(ours, plain)
    events = EventAccumulator(str(tmp_path / "validation"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("predictions")] == [0, 1]
