"""What Keras 3 and TensorFlow 2.16 no longer have ends in one line that says what to write instead."""

import sys
import traceback

import pytest

keras = pytest.importorskip("keras")

from hpc_train.parallel.horovod_names import removed  # noqa: E402

BEFORE = """
import keras, numpy as np, tensorflow as tf
from tensorflow.keras import backend as K
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.ones((4, 2)), np.ones((4, 1))
scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
"""
LINE = BEFORE.count("\n") + 1

GONE = {
    "model.fit_generator(iter([]))": "Keras 3 has no fit_generator: use fit",
    "model.predict_classes(x)": "Keras 3 has no predict_classes: use model.predict",
    "K.set_session(1)": "Keras 3 has no set_session: TensorFlow 2 has no sessions",
    "tf.compat.v1.keras.backend.set_session(1)": "Keras 3 has no set_session: TensorFlow 2 has no sessions",
    "tf.Session()": "TensorFlow has no Session: TensorFlow 2 has no sessions",
    "tf.ConfigProto()": "tf.config.set_visible_devices",
    "tf.placeholder(tf.float32)": "TensorFlow has no placeholder: it is of TensorFlow 1",
    "tf.train.AdamOptimizer(0.1)": "TensorFlow has no AdamOptimizer",
    "tf.nothing_of_the_kind()": "TensorFlow has no nothing_of_the_kind; try `hpc-train port",
    "scaled.get_scaled_loss(1.0)": "Keras 3 has no get_scaled_loss: use loss = optimizer.scale_loss(loss)",
    "scaled.get_unscaled_gradients([1.0])": "Keras 3 has no get_unscaled_gradients",
    "keras.optimizers.SGD().get_weights()": "Keras 3 has no get_weights: use optimizer.variables",
    "tf.keras.optimizers.legacy.Adam(0.1)": "Keras 3 has no keras.optimizers.legacy: use the class of the same name",
    "keras.optimizers.legacy.SGD()": "Keras 3 has no keras.optimizers.legacy: use the class of the same name",
    "keras.callbacks.ModelCheckpoint('checkpoint-{epoch}')": "end in .keras or .h5",
    "keras.callbacks.ModelCheckpoint('w.h5', save_weights_only=True)": "end in .weights.h5",
    "keras.callbacks.ModelCheckpoint('w.h5', period=2)": "Keras 3 has no period=: use save_freq",
    "model.save('folder')": "not to folders",
    "model.save_weights('w')": "end in .weights.h5",
    "keras.models.load_model('folder')": "write it again as .h5 with Keras 2",
    "model.fit(x, y, workers=4)": "Keras 3 has no workers=: ",
    "model.evaluate(x, y, workers=4)": "Keras 3 has no workers=: ",
    "model.fit(x, y, nb_epoch=4)": "Keras 3 has no nb_epoch=: use epochs",
    "keras.utils.multi_gpu_model(model, 2)": "Horovod runs one process a GPU",
    "from keras.utils import np_utils": "Keras 3 has no np_utils: its functions",
    "from keras.layers.normalization import BatchNormalization": "all layers are in keras.layers",
    "from keras.layers import CuDNNLSTM": "use LSTM",
    "import tensorflow.contrib": "TensorFlow has no tensorflow.contrib: it is of TensorFlow 1",
    "import tensorflow_addons": "the package ended in 2024",
    "from tensorflow.keras.wrappers.scikit_learn import KerasClassifier": "use the scikeras package",
    "tf.keras.layers.experimental.preprocessing": "Keras 3 has no experimental",
    "tf.estimator.Estimator": "TensorFlow has no estimator: it is of TensorFlow 1",
    "K.learning_phase()": "training=True",
    "model.reset_states()": "Keras 3 has no reset_states: use reset_state, of a metric or of each stateful layer",
    "tf.add(keras.Input((2,)), 1.0)": "use keras.ops, or call the function in a layer of your own",
    "scaled.inner_optimizer.build([]); scaled.inner_optimizer.apply([x], [keras.Variable(x)])": "make, and wrap, a new",
}
# Errors of the script's own.
OTHERS = (
    *("None.fit_generator", "import keras_of_mine", "int.period", "open(workers=1)", "1 / 0", "np.float_of_mine"),
    *("(lambda x: x)(workers=1)", "raise ValueError('must end')", "model.fit(x[:, :1], y, verbose=0)"),
)


def error_of(code):
    try:
        exec(compile(BEFORE + code, "/somewhere/train.py", "exec"), {})
    except Exception:
        return sys.exc_info()
    pytest.fail(f"no error: {code}")


@pytest.mark.parametrize("code", GONE)
def test_a_word_of_keras_2_is_one_line(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, error, trace = error_of(code)
    line = removed.explain(kind, error, trace)
    assert line, "".join(traceback.format_exception(kind, error, trace))
    assert line.startswith(f"train.py:{LINE}: ")
    assert GONE[code] in line
    assert line.endswith("; try `hpc-train port train.py`")
    assert "\n" not in line


@pytest.mark.parametrize("code", OTHERS)
def test_other_errors_are_left_alone(code):
    assert removed.explain(*error_of(code)) is None
