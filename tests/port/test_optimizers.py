"""Optimizers: names of arguments, decay, the learning rate, TensorFlow 1's."""

import pytest

CHANGED = [
    ("from keras.optimizers import Adam as A\nopt = A(lr=0.001)\n", "opt = A(learning_rate=0.001)\n"),
    (
        "import tensorflow.keras as k\nopt = k.optimizers.SGD(momentum=0.9, lr=r)\n",
        "SGD(momentum=0.9, learning_rate=r)",
    ),
    ("import tensorflow as tf\nopt = tf.optimizers.Adam(lr=1)\n", "opt = tf.optimizers.Adam(learning_rate=1)\n"),
    ("from tensorflow import keras\no = keras.optimizers\nopt = o.Adam(lr=1)\n", "opt = o.Adam(learning_rate=1)\n"),
    ("import keras\nopt = getattr(keras.optimizers, name)(lr=1)\n", "getattr(keras.optimizers, name)(learning_rate=1)"),
    ("import keras\nopt = keras.optimizers.Adam(lr=1, epsilon=None, decay=0.0)\n", "Adam(learning_rate=1)\n"),
    ("import keras\nopt = keras.optimizers.Nadam(0.1, schedule_decay=0.004)\n", "Nadam(0.1)\n"),
    (
        "import keras\nopt = keras.optimizers.SGD(lr=0.1, decay=a / b, momentum=0.9)\n",
        "SGD(learning_rate=keras.optimizers.schedules.InverseTimeDecay(0.1, 1, a / b), momentum=0.9)\n",
    ),
    (
        "from keras.optimizers import SGD\nopt = SGD(0.1, decay=1e-6)\n",
        "import keras\nfrom keras.optimizers import SGD\n"
        "opt = SGD(keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 1e-6))\n",
    ),
    (
        "from tensorflow.keras.optimizers import SGD\nopt = SGD(0.1, decay=1e-6)\n",
        "from tensorflow import keras\nfrom tensorflow.keras.optimizers import SGD\n",
    ),
    ("import tensorflow as tf\nopt = tf.keras.optimizers.legacy.Adam(0.1)\n", "opt = tf.keras.optimizers.Adam(0.1)\n"),
    (
        "from tensorflow.keras.optimizers.legacy import Adam, SGD as S\n",
        "from tensorflow.keras.optimizers import Adam, SGD as S\n",
    ),
    (
        "import keras\nopt = keras.optimizers.Adam(1)\nopt.lr = opt.lr * 2\n",
        "opt.learning_rate = opt.learning_rate * 2\n",
    ),
    ("import keras\nprint(self.model.optimizer.lr.numpy())\n", "print(self.model.optimizer.learning_rate.numpy())\n"),
    ("import keras\nif hasattr(model.optimizer, 'lr'): pass\n", "hasattr(model.optimizer, 'learning_rate')"),
    (
        "from keras import backend as K\nrate = K.get_value(model.optimizer.lr)\n",
        "rate = float(model.optimizer.learning_rate)\n",
    ),
    (
        "import tensorflow as tf\ntf.keras.backend.set_value(model.optimizer.lr, a * 2)\n",
        "model.optimizer.learning_rate = a * 2\n",
    ),
    (
        "from keras import backend as K\nf = lambda e, logs: K.set_value(opt.lr, 0.1 / e)\n",
        "f = lambda e, logs: opt.learning_rate.assign(0.1 / e)\n",
    ),
    (
        "import horovod.tensorflow as hvd\nhvd.broadcast_variables(adam.variables(), root_rank=0)\n",
        "hvd.broadcast_variables(adam.variables, root_rank=0)\n",
    ),
    (
        "import keras\nopt = keras.optimizers.Adam(1)\nw = opt.get_weights()\n",
        "w = [v.numpy() for v in opt.variables]\n",
    ),
    (
        "import tensorflow as tf\nopt = tf.train.AdamOptimizer(0.001 * n)\n",
        "opt = tf.keras.optimizers.Adam(learning_rate=0.001 * n, epsilon=1e-8)\n",
    ),
    (
        "import tensorflow as tf\nopt = tf.compat.v1.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True)\n",
        "opt = tf.keras.optimizers.SGD(learning_rate=0.1, momentum=0.9, nesterov=True)\n",
    ),
]
LEFT = [
    ("import keras\nopt = keras.optimizers.SGD(decay=1e-6)\n", 2, "with the rate that this call leaves out"),
    (
        "import keras\nopt = keras.optimizers.SGD(0.1, decay=1e-6)\ncb = keras.callbacks.ReduceLROnPlateau()\n",
        2,
        "line 3 sets the rate, which a schedule forbids",
    ),
    ("import tensorflow as tf\nopt = tf.train.RMSPropOptimizer(0.1)\n", 2, "takes no RMSPropOptimizer"),
    (
        "import tensorflow as tf\nopt = tf.train.AdamOptimizer(0.1)\nstep = opt.minimize(loss)\n",
        3,
        "optimizers of Keras 3 have no minimize",
    ),
    ("import keras\nopt = eval('keras.optimizers.Adam(lr=0.1)')\n", 2, "this text makes an optimizer"),
    ("import keras\nopt = keras.optimizers.Adam(1)\nopt.set_weights(w)\n", 3, "have no set_weights"),
]
SAME = [
    "import keras\nopt = keras.optimizers.Adam(learning_rate=0.1, weight_decay=1e-4)\nprint(args.lr, config.lr)\n",
    "import torch\noptimizer = torch.optim.SGD(p, lr=0.1)\noptimizer.lr\n",
    "def Adam(lr):\n    return lr\nAdam(lr=1)\n",
    "import keras\nrates = dict(lr=1)\nmodel = build(lr=0.1, decay=0.1)\nx = thing.variables()\n",
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
    assert [why for number, why in left if number == line and reason in why]


@pytest.mark.parametrize("text", SAME)
def test_needs_nothing(ported, text):
    assert ported(text) == (text, [], [])
