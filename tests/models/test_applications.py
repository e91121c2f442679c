"""Keras's applications take raw images, do what their papers do to them, and return logits."""

import numpy as np
import pytest

from hpc_train.errors import UserError


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    import keras

    return keras


# What the networks' papers feed them, from images of 0 to 255: He et al. and Simonyan and Zisserman as Caffe does,
# blue first and less ImageNet's mean; Inception's -1 to 1; DenseNet's mean and deviation of channels.
CAFFE = lambda rgb: rgb[..., ::-1] - [103.939, 116.779, 123.68]  # noqa: E731
INCEPTION = lambda rgb: rgb / 127.5 - 1  # noqa: E731
TORCH = lambda rgb: (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]  # noqa: E731


@pytest.mark.parametrize(
    ("module", "meaning"),
    [("resnet", CAFFE), ("vgg16", CAFFE), ("xception", INCEPTION), ("resnet_v2", INCEPTION), ("densenet", TORCH)],
)
def test_an_application_gets_what_its_paper_feeds_it(keras, tmp_path, module, meaning):
    from hpc_train.models.applications import _preprocess

    inputs = keras.Input((4, 4, 3), dtype="uint8")
    model = keras.Model(inputs, _preprocess(inputs, getattr(keras.applications, module).preprocess_input))
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("uint8")
    np.testing.assert_allclose(model(images), meaning(images.astype("float64")), rtol=1e-5, atol=1e-4)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(images), model(images))


# Parameters and features of what is published without a classifier, moving statistics included.
@pytest.mark.parametrize(
    ("name", "shape", "published", "features"),
    [
        ("EfficientNetV2B0", (32, 32, 3), 5_919_312, 1280),
        ("MobileNet", (40, 32, 3), 3_228_864, 1024),
        # The top of its trunk is a layer of 1024 after the pool.
        ("MobileNetV3Small", (32, 48, 1), 939_120 + 576 * 1024 + 1024, 1024),
    ],
)
def test_an_application_takes_raw_images_and_returns_float32_logits(keras, name, shape, published, features):
    from hpc_train.models import applications, augment

    model = applications.build(name, shape, 7, augment=augment.crop_flip if shape[-1] == 1 else None)
    assert model.input.dtype == "uint8"
    assert model.input_shape == (None, *shape)
    assert model.layers[-1].name == "logits"
    assert model.layers[-1].get_config()["activation"] == "linear"
    weights = [variable for variable in model.variables if not variable.path.endswith("seed_generator_state")]
    assert sum(int(np.prod(variable.shape)) for variable in weights) == published + features * 7 + 7
    logits = np.asarray(model(np.zeros((2, *shape), "uint8"), training=False))
    assert logits.shape == (2, 7)
    assert logits.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("EfficientNetV2B00", (224, 224, 3), "mean EfficientNetV2B0"),
        ("resnet50", (224, 224, 3), "mean ResNet50"),
        ("xyz", (224, 224, 3), "the networks are .*VGG16"),
        ("InceptionV3", (64, 64, 3), "75 x 75"),
        ("ResNet50", (64, 64, 4), "1 or 3 channels"),
        ("ResNet50", (784,), "1 or 3 channels"),
    ],
)
def test_an_application_that_cannot_be_built_is_refused_in_one_line(keras, name, shape, says):
    from hpc_train.models import applications

    with pytest.raises(UserError, match=says) as refused:
        applications.build(name, shape, 10)
    assert "\n" not in str(refused.value)
