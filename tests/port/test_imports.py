"""Imports that moved, names that only tf.keras has, names that are gone."""

import pytest

CHANGED = [
    ("from keras.layers.normalization import BatchNormalization\n", "from keras.layers import BatchNormalization\n"),
    ("from keras.layers.convolutional import Conv2D as C\n", "from keras.layers import Conv2D as C\n"),
    ("from keras.layers.advanced_activations import PReLU  # kept\n", "from keras.layers import PReLU  # kept\n"),
    ("from keras.engine.topology import Layer, InputSpec\n", "from keras.layers import Layer, InputSpec\n"),
    ("from keras.engine.training import Model\n", "from keras.models import Model\n"),
    ("from keras.utils.np_utils import to_categorical\n", "from keras.utils import to_categorical\n"),
    ("from keras.utils import np_utils\ny = np_utils.to_categorical(y)\n", "from keras import utils as np_utils\n"),
    (
        "from tensorflow.keras.layers.experimental import preprocessing\nx = preprocessing.Rescaling(2)\n",
        "from tensorflow.keras import layers as preprocessing\nx = preprocessing.Rescaling(2)\n",
    ),
    (
        "from tensorflow.keras.layers.experimental.preprocessing import (\n    RandomFlip,  # one\n    RandomZoom,\n"
        ")\n",
        "from tensorflow.keras.layers import (\n    RandomFlip,  # one\n    RandomZoom,\n)\n",
    ),
    ("from tensorflow.python.keras.layers import Dense\n", "from tensorflow.keras.layers import Dense\n"),
    ("import tensorflow.python.keras as keras\n", "import tensorflow.keras as keras\n"),
    ("from tensorflow.python.keras.layers.core import Dense\n", "from tensorflow.keras.layers import Dense\n"),
    (
        "from keras.preprocessing.image import ImageDataGenerator, load_img\n",
        "from tensorflow.keras.preprocessing.image import ImageDataGenerator\n"
        "from keras.preprocessing.image import load_img\n",
    ),
    ("from keras.layers import ThresholdedReLU\n", "from tensorflow.keras.layers import ThresholdedReLU\n"),
    ("from keras import backend as K\nx = K.mean(y)\n", "from tensorflow.keras import backend as K\n"),
    (
        "import keras\nx = keras.preprocessing.image.ImageDataGenerator()\n",
        "import tensorflow as tf\nimport keras\nx = tf.keras.preprocessing.image.ImageDataGenerator()\n",
    ),
    ("import tensorflow as tf\nf = tf.keras.losses.mean_squared_error\n", "f = tf.keras.losses.mse\n"),
    ("from keras.objectives import mean_squared_error\n", "from keras.losses import mean_squared_error\n"),
    ("from keras.models import Sequential, Input\n", "from keras.models import Sequential\nfrom keras import Input\n"),
    ("from keras.layers.core import *\n", "from keras.layers import *\n"),
    ("import tensorflow as tf\ntf.set_random_seed(1)\n", "tf.random.set_seed(1)\n"),
    ("import tensorflow as tf\ntf.logging.set_verbosity(3)\n", "tf.compat.v1.logging.set_verbosity(3)\n"),
    ("import tensorflow as tf\ny = tf.to_float(x)\n", "y = tf.cast(x, tf.float32)\n"),
]
LEFT = [
    ("from keras.utils import multi_gpu_model\nm = multi_gpu_model(m, 2)\n", 1, "one process a GPU with Horovod"),
    ("import tensorflow_addons as tfa\n", 1, "tensorflow_addons ended in 2024"),
    ("import tensorflow as tf\ne = tf.estimator.Estimator(f)\n", 2, "estimators ended"),
    ("import tensorflow as tf\np = tf.keras.backend.learning_phase()\n", 2, "training=True or False"),
    ("import tensorflow as tf\nx = tf.placeholder(tf.float32)\n", 2, "TensorFlow 2 has no tf.placeholder"),
    ("import tensorflow as tf\nx = tf.keras.layers.LocallyConnected1D(3, 3)\n", 2, "has no keras.layers.Locally"),
    ("import tensorflow as tf\nwith tf.train.MonitoredTrainingSession() as s:\n    pass\n", 2, "tf.GradientTape"),
    ("from tensorflow.examples.tutorials.mnist import input_data\n", 1, "use keras.datasets.mnist"),
]


@pytest.mark.parametrize(("before", "after"), CHANGED)
def test_is_changed(ported, before, after):
    new, reasons, left = ported(before)
    assert after in new
    assert reasons
    assert not left


@pytest.mark.parametrize(("text", "line", "reason"), LEFT)
def test_is_named_and_left_alone(ported, text, line, reason):
    new, _, left = ported(text)
    assert new == text
    assert [why for number, why in left if number == line and reason in why], left


def test_an_import_that_nothing_uses_any_more_goes(ported):
    new, _, left = ported(
        "from keras import backend as K, layers\nK.set_value(model.optimizer.lr, 1)\nlayers.Dense(1)\n"
    )
    assert (new, left) == ("from keras import layers\nmodel.optimizer.learning_rate = 1\nlayers.Dense(1)\n", [])


def test_names_that_are_right_stay(ported):
    text = (
        "import tensorflow as tf\nimport keras\nfrom keras import layers, ops\nfrom keras.src import backend\n"
        "from tensorflow.keras.applications import ResNet50\nfrom tensorflow.python.client import device_lib\n"
        "x = tf.keras.applications.resnet50.preprocess_input(tf.io.read_file('x'))\ny = tf.data.AUTOTUNE\n"
        "keras.utils.set_random_seed(1)\nz = tf.compat.v1.logging.ERROR\nlayer.keras.missing = ops.mean(x)\n"
    )
    assert ported(text) == (text, [], [])
