"""Scripts of the old forms run under the installed Keras once they are ported, and reach the numbers they meant."""

import subprocess
import sys

import pytest
from launch import environment

pytest.importorskip("tensorflow")

DATA = """import numpy as np
x, y = np.ones((8, 4, 4, 1), "float32"), np.arange(8) % 2
"""
# Keras 2 decayed the rate by steps: w after three steps of the loss w, whose gradient is 1, from w = 0.
DECAY = """import numpy as np
from keras.models import Sequential
from keras.layers.core import Dense
from keras.optimizers import SGD
model = Sequential()
model.add(Dense(1, input_shape=(1,), use_bias=False, kernel_initializer="zeros"))
model.compile(loss=lambda true, predicted: predicted, optimizer=SGD(lr=0.1, decay=0.5))
model.fit(np.ones((3, 1)), np.zeros((3, 1)), batch_size=1, nb_epoch=1, verbose=0)
expected = -sum(0.1 / (1 + 0.5 * step) for step in range(3))
np.testing.assert_allclose(model.get_weights()[0], [[expected]], rtol=1e-6)
"""
COURSE = f"""from __future__ import print_function
import keras
import tensorflow as tf
from keras import backend as K
from keras.models import Sequential
from keras.layers.convolutional import Conv2D, MaxPooling2D
from keras.layers import Dense, Flatten
from keras.utils import np_utils
{DATA}
config = tf.ConfigProto()
config.gpu_options.allow_growth = True
config.gpu_options.visible_device_list = str(0)
K.set_session(tf.Session(config=config))
y = np_utils.to_categorical(y, 2)
model = Sequential([Conv2D(2, (3, 3), input_shape=(4, 4, 1)), Flatten(), Dense(2, activation="softmax")])
opt = keras.optimizers.Adadelta(lr=1.0, epsilon=None, decay=0.0)
model.compile(loss=keras.losses.categorical_crossentropy, optimizer=opt, metrics=["accuracy"],
              experimental_run_tf_function=False)
class Halve(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        K.set_value(self.model.optimizer.lr, K.get_value(self.model.optimizer.lr) * 0.5)
checkpoint = keras.callbacks.ModelCheckpoint("c-{{epoch}}.h5", monitor="acc", save_weights_only=True, period=1)
callbacks = [Halve(), checkpoint]
history = model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
assert len(history.history["acc"]) == 2
model.load_weights("c-2.h5")
assert abs(K.get_value(opt.lr) - 0.25) < 1e-6
assert model.predict_classes(x).shape == (8,)
model.save("whole")
keras.models.load_model("whole")
"""
GENERATOR = f"""from keras.preprocessing.image import ImageDataGenerator
from keras.layers import Flatten, Dense
import keras
{DATA}
model = keras.Sequential()
model.add(Flatten(batch_input_shape=(None, 4, 4, 1)))
model.add(Dense(1, activation="sigmoid"))
model.compile(optimizer="sgd", loss="binary_crossentropy")
data = ImageDataGenerator(horizontal_flip=True).flow(x, y, batch_size=4)
model.fit_generator(data, 2, 1, verbose=0, workers=2, use_multiprocessing=False)
model.evaluate_generator(data, 2)
assert model.predict_classes(x).dtype == "int32"
"""
LOOP = f"""import tensorflow as tf
from tensorflow.keras.mixed_precision import experimental as mixed_precision
tf.compat.v1.enable_eager_execution()
tf.set_random_seed(1)
{DATA}
mixed_precision.set_policy("float32")
model = tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(4, 4, 1)), tf.keras.layers.Dense(1)])
opt = mixed_precision.LossScaleOptimizer(tf.keras.optimizers.legacy.SGD(lr=0.01), loss_scale="dynamic")
before = model.get_weights()[0].copy()
@tf.function
def step():
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x))
        scaled = opt.get_scaled_loss(loss)
    gradients = tape.gradient(scaled, model.trainable_variables)
    gradients = opt.get_unscaled_gradients(gradients)
    opt.apply_gradients(zip(gradients, model.trainable_variables))
step()
assert len(opt.variables()) > 0
np.testing.assert_allclose(model.get_weights()[0], before - 0.01, rtol=1e-5)
"""
TEXT = """import numpy as np
import keras
from keras.layers import Dense, Embedding, Flatten
from keras.layers.advanced_activations import LeakyReLU, ThresholdedReLU
table = np.arange(12.0).reshape(6, 2)
model = keras.models.Sequential()
model.add(Embedding(6, 2, weights=[table], input_length=3, trainable=False))
model.add(Flatten())
model.add(LeakyReLU(alpha=0.1))
model.add(ThresholdedReLU(theta=2.0))
model.add(Dense(1))
np.testing.assert_array_equal(model.layers[0].get_weights()[0], table)
assert model.predict(np.zeros((2, 3)), verbose=0).shape == (2, 1)
"""
SCRIPTS = {"decay": DECAY, "course": COURSE, "generator": GENERATOR, "loop": LOOP, "text": TEXT}
# One process for all of them: each would import TensorFlow.
RUNNER = """import runpy, sys, traceback
for name in sys.argv[1:]:
    try:
        runpy.run_path(name, run_name="__main__")
        print("ran", name, flush=True)
    except BaseException:
        traceback.print_exc(limit=-2)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the ported scripts printed."""
    from hpc_train.port.python_file import port

    folder = tmp_path_factory.mktemp("scripts")
    for name, text in SCRIPTS.items():
        changes = port(text)
        assert changes.left == [], name
        (folder / f"{name}.py").write_bytes(changes.result())
    names = [f"{name}.py" for name in SCRIPTS]
    command = [sys.executable, "-c", RUNNER, *names]
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs(ran, name):
    assert f"ran {name}.py\n" in ran, ran[-4000:]
