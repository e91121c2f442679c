"""The MNIST family has the layers that its names promise: parameters counted by hand."""

import pytest

from hpc_train.errors import UserError

# 28 x 28 x 1, 10 classes
PARAMETERS = {
    "fc": 784 * 64 + 64 + 64 * 10 + 10,
    "cnn": (9 * 32 + 32) + (13 * 13 * 32 * 100 + 100) + (100 * 10 + 10),
    "deep": (9 * 32 + 32) + (9 * 32 * 64 + 64) + (12 * 12 * 64 * 128 + 128) + (128 * 10 + 10),
    "dropout": (9 * 32 + 32) + (9 * 32 * 64 + 64) + (12 * 12 * 64 * 128 + 128) + (128 * 10 + 10),
    "batchnorm": (9 * 32 + 32)
    + (9 * 32 * 64 + 64)
    + (12 * 12 * 64 * 128 + 128)
    + (128 * 10 + 10)
    # four numbers a channel after each convolution, the pool and the dense layer
    + 4 * (32 + 64 + 64 + 128),
    "residual": 9 * 16
    + 5 * 9 * (16**2 + 32**2 + 64**2)
    + (16 * 32 + 32 * 64)
    + 4 * (5 * (16 + 32 + 64) + 64)
    + (64 * 10 + 10),
    # four gates of 64 units, from a row of 28 or from the 64 below, and from the state; a bias
    "lstm": 4 * 64 * (28 + 64 + 1) + 3 * (4 * 64 * (64 + 64 + 1)) + (64 * 10 + 10),
}


@pytest.fixture(scope="module")
def mnist():
    pytest.importorskip("tensorflow")
    from hpc_train.models import mnist

    return mnist


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(mnist, name):
    model = mnist.build(name, (28, 28, 1), "uint8", 10)
    assert model.count_params() == PARAMETERS[name]
    assert model.output_shape == (None, 10)
    assert model.dtype_policy.name == "float32"


def test_the_residual_network_has_fifteen_residual_layers(mnist):
    model = mnist.build("residual", (28, 28, 1), "uint8", 10)
    assert sum(layer.name.startswith("residual") for layer in model.layers) == 15


def test_augmentation_changes_training_images_only(mnist):
    import numpy as np

    layer = mnist.augmentation()
    images = np.random.default_rng(0).random((4, 28, 28, 1)).astype("float32")
    np.testing.assert_array_equal(layer(images, training=False), images)
    assert not np.allclose(layer(images, training=True), images)


@pytest.mark.parametrize("shape", [(28, 28), (4, 4, 1)])
def test_data_that_are_not_images_are_refused(mnist, shape):
    with pytest.raises(UserError, match="images"):
        mnist.build("fc", shape, "uint8", 10)
