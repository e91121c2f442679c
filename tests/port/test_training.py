"""Models, callbacks, files, layers, mixed precision and Horovod's callbacks."""

import pytest

CHANGED = [
    (
        "import keras\nmodel.compile(loss='mse', optimizer=opt, experimental_run_tf_function=False,\n"
        "              metrics=m)\n",
        "model.compile(loss='mse', optimizer=opt, metrics=m)\n",
    ),
    (
        "import keras\nmodel.compile(\n    opt,\n    experimental_run_tf_function=False,  # Horovod needs it\n)\n",
        "model.compile(\n    opt,\n    # Horovod needs it\n)\n",
    ),
    (
        "import keras\nmodel.fit_generator(gen, 10, 5, verbose=v, workers=4, use_multiprocessing=True)\n",
        "model.fit(gen, steps_per_epoch=10, epochs=5, verbose=v)\n",
    ),
    ("import keras\nmodel.fit_generator(generator=gen, steps_per_epoch=s)\n", "model.fit(x=gen, steps_per_epoch=s)\n"),
    ("import keras\nx = model.evaluate_generator(gen, 3)\n", "x = model.evaluate(gen, steps=3)\n"),
    ("import keras\nx = model.predict_generator(gen, steps=3)\n", "x = model.predict(gen, steps=3)\n"),
    (
        "import keras\nmodel.compile(loss='sparse_categorical_crossentropy')\nc = model.predict_classes(x, 32)\n",
        "c = model.predict(x, 32).argmax(axis=-1)\n",
    ),
    (
        "import keras\nmodel.compile(loss='binary_crossentropy')\nc = model.predict_classes(x)\n",
        'c = (model.predict(x) > 0.5).astype("int32")\n',
    ),
    ("import keras\nmodel = keras.Sequential()\np = model.predict_proba(x)\n", "p = model.predict(x)\n"),
    ("import keras\nm = keras.models.Model(input=a, output=b)\n", "m = keras.models.Model(inputs=a, outputs=b)\n"),
    (
        "from keras.callbacks import ModelCheckpoint as M\nm = M('a.h5', save_weights_only=True, period=1)\n"
        "model.load_weights('a.h5')\n",
        "m = M('a.weights.h5', save_weights_only=True)\nmodel.load_weights('a.weights.h5')\n",
    ),
    ("import keras\nc = keras.callbacks.ModelCheckpoint(f'{d}/c.tf')\n", "ModelCheckpoint(f'{d}/c.keras')\n"),
    ("import keras\nmodel.save_weights(os.path.join(d, 'w.hdf5'))\n", "(os.path.join(d, 'w.weights.h5'))\n"),
    (
        "import keras\nname = 'out/' + 'model'\nmodel.save(name, save_format='tf')\n",
        "'model.keras'\nmodel.save(name)\n",
    ),
    (
        "import keras\nmodel.save('final')\nm = keras.models.load_model('final')\nprint('final')\n",
        "model.save('final.keras')\nm = keras.models.load_model('final.keras')\nprint('final')\n",
    ),
    (
        "import keras\nmodel.compile(metrics=['accuracy'])\ne = keras.callbacks.EarlyStopping('val_acc')\n"
        "c = keras.callbacks.ModelCheckpoint('{epoch}-{val_acc:.2f}.h5', monitor='acc')\nprint(h.history['lr'])\n",
        "e = keras.callbacks.EarlyStopping('val_accuracy')\n"
        "c = keras.callbacks.ModelCheckpoint('{epoch}-{val_accuracy:.2f}.h5', monitor='accuracy')\n"
        "print(h.history['learning_rate'])\n",
    ),
    ("import keras\nt = keras.callbacks.TensorBoard('l', write_grads=True, batch_size=3)\n", "TensorBoard('l')\n"),
    ("import keras\nr = keras.callbacks.ReduceLROnPlateau(epsilon=1)\n", "ReduceLROnPlateau(min_delta=1)\n"),
    (
        "import keras\nmodel = keras.Sequential()\nmodel.add(keras.layers.Embedding(9, 2, input_length=5))\n",
        "model.add(keras.Input((5,)))\nmodel.add(keras.layers.Embedding(9, 2))\n",
    ),
    ("import keras\ny = keras.layers.Embedding(9, 2, input_length=1)(x)\n", "y = keras.layers.Embedding(9, 2)(x)\n"),
    (
        "import keras\nm = keras.Sequential([\n    keras.layers.LSTM(4, batch_input_shape=(2, 3, 4)),\n])\n",
        "[\n    keras.Input(batch_shape=(2, 3, 4)),\n    keras.layers.LSTM(4),\n]",
    ),
    (
        "import keras\ne = keras.layers.Embedding(9, 2, weights=[table], trainable=False)\n",
        "Embedding(9, 2, embeddings_initializer=keras.initializers.Constant(table), trainable=False)\n",
    ),
    ("import keras\nm = keras.metrics.AUC()\nm.reset_states()\n", "m.reset_state()\n"),
    (
        "import tensorflow as tf\nfor metric in metrics:\n    metric.reset_states()\n",
        "for metric in metrics:\n    metric.reset_state()\n",
    ),
    (
        "from keras.metrics import Metric\nclass Mine(Metric):\n    def reset_states(self):\n"
        "        super().reset_states()\n",
        "    def reset_state(self):\n        super().reset_state()\n",
    ),
    ("import keras\nx = keras.layers.LeakyReLU(alpha=0.1)\n", "LeakyReLU(negative_slope=0.1)\n"),
    ("import keras\nx = keras.layers.CuDNNLSTM(3)\n", "keras.layers.LSTM(3)\n"),
    (
        "import keras\nclass L(keras.layers.Layer):\n    def build(self, s):\n        self.add_weight('k', shape=s)\n",
        "self.add_weight(name='k', shape=s)\n",
    ),
    (
        "import tensorflow as tf\ngrads = tape.gradient(opt.get_scaled_loss(loss), v)\n"
        "grads = opt.get_unscaled_gradients(grads)\nopt.apply_gradients(zip(grads, v))\n",
        "grads = tape.gradient(opt.scale_loss(loss), v)\nopt.apply_gradients(zip(grads, v))\n",
    ),
    (
        "import keras\nif amp:\n    a = opt.get_unscaled_gradients(a)\n    b = opt.get_unscaled_gradients(b)\n"
        "opt.apply_gradients(zip(a, v))\nopt.apply_gradients(list(zip(b, w)))\n",
        "if amp:\n    pass\nopt.apply_gradients(zip(a, v))\n",
    ),
    (
        "from tensorflow.keras.mixed_precision import experimental as mp\n"
        "mp.set_policy(mp.Policy('mixed_float16', loss_scale='dynamic'))\n",
        "from tensorflow.keras import mixed_precision as mp\nmp.set_global_policy(mp.Policy('mixed_float16'))\n",
    ),
    (
        "import keras\nimport horovod.keras as hvd\nopt = keras.optimizers.Adam(0.1 * hvd.size())\n"
        "c = hvd.callbacks.LearningRateWarmupCallback(warmup_epochs=3)\n",
        "LearningRateWarmupCallback(initial_lr=0.1 * hvd.size(), warmup_epochs=3)\n",
    ),
    (
        "import horovod.keras as hvd\nc = hvd.callbacks.LearningRateWarmupCallback(lr=0.1, verbose=1)\n",
        "LearningRateWarmupCallback(initial_lr=0.1, verbose=1)\n",
    ),
    (
        "import keras\nimport horovod.keras as hvd\nopt = keras.optimizers.Adam(rate)\n"
        "c = hvd.callbacks.LearningRateWarmupCallback(5)\n",
        "LearningRateWarmupCallback(initial_lr=rate, warmup_epochs=5)\n",
    ),
]
LEFT = [
    (
        "import tensorflow as tf\ngrads = opt.get_unscaled_gradients(grads)\n"
        "grads = [tf.clip_by_norm(g, 1.0) for g in grads]\nopt.apply_gradients(zip(grads, v))\n",
        *(2, "line 3 uses them: to clip them"),
    ),
    (
        "import tensorflow as tf\ngrads, norm = tf.clip_by_global_norm(opt.get_unscaled_gradients(grads), 1.0)\n"
        "opt.apply_gradients(zip(grads, v))\n",
        *(2, "line 2 uses them: to clip them"),
    ),
    ("import keras\nc = keras.callbacks.ModelCheckpoint('a.keras', period=5)\n", 2, "save_freq=5 * steps"),
    ("import keras\nmodel.save_weights(args.path)\n", 2, "see that this one does"),
    ("import keras\nc = model.predict_classes(x)\n", 2, "argmax"),
    ("import keras\ne = keras.callbacks.EarlyStopping('val_acc')\n", 2, "is it 'val_acc'?"),
    ("import keras\ny = keras.layers.LSTM(4, batch_input_shape=s)(x)\n", 2, "put keras.Input"),
    ("import keras\nd = keras.layers.Dense(4, weights=w)\n", 2, "do not take weights"),
    (
        "import tensorflow as tf\nopt = tf.train.experimental.enable_mixed_precision_graph_rewrite(opt)\n",
        2,
        "set_global_policy",
    ),
    (
        "import horovod.keras as hvd\nc = hvd.callbacks.LearningRateWarmupCallback(warmup_epochs=3)\n",
        2,
        "needs initial_lr",
    ),
    ("import horovod.tensorflow as hvd\nh = hvd.BroadcastGlobalVariablesHook(0)\n", 2, "no sessions to hook into"),
]
SAME = [
    "import keras\ngame.reset_states()\nlayer = keras.layers.LSTM(4, stateful=True)\nlayer.reset_states()\n",
    "import keras\nfig.save('plot')\nnp.save('x', y)\nmodel.save('m.h5')\nmodel.save_weights('a.weights.h5')\n",
    "import keras\nc = keras.callbacks.ModelCheckpoint('./checkpoint-{epoch}.h5')\n",
    "import keras\nmodel.compile(metrics=['acc'])\ne = keras.callbacks.EarlyStopping('val_acc')\n",
    "from sklearn.linear_model import LogisticRegression\nmodel = LogisticRegression()\nmodel.predict_proba(x)\n",
    "pool.fit(x, workers=3)\n",
    "import keras\nmodel.add(keras.layers.Dense(4, input_shape=(3,)))\n",
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


@pytest.mark.parametrize("text", SAME)
def test_needs_nothing(ported, text):
    assert ported(text) == (text, [], [])
