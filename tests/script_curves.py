"""What each script of `tests/scripts` should compute: plain Keras in one process, with the batches of all ranks."""

import keras
import numpy as np
import tensorflow as tf

RANKS, BATCH = 2, 16


def made_up_data() -> dict:
    """Images of ten classes, each a noisy copy of its class's own: 192 to train, 64 to validate."""
    draw = np.random.default_rng(7)
    kinds = draw.normal(size=(10, 8, 8, 1))
    data = {}
    for end, samples in (("", 192), ("_val", 64)):
        data[f"y{end}"] = draw.integers(0, 10, samples).astype("int32")
        noise = draw.normal(size=(samples, 8, 8, 1))
        data[f"x{end}"] = (0.4 * kinds[data[f"y{end}"]] + 0.7 * noise).astype("float32")
    return data


def dense(*hidden, softmax=True, seed=1):
    """Layers flattened, dense (relu), and dense of ten; the scripts' first weights."""
    init = keras.initializers.GlorotUniform(seed=seed)
    layers = [keras.layers.Dense(units, "relu", kernel_initializer=init) for units in hidden]
    last = keras.layers.Dense(10, "softmax" if softmax else None, kernel_initializer=init)
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), *layers, last])


def convolution(pool=False, seed=1):
    init = keras.initializers.GlorotUniform(seed=seed)
    layers = [keras.layers.Conv2D(8, 3, activation="relu", kernel_initializer=init)]
    layers += [keras.layers.MaxPooling2D(2)] * pool
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, "softmax", kernel_initializer=init)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


class Rate(keras.callbacks.Callback):
    """Sets the rate of every batch: `rate` is a function of the batches before it."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.batches = rate, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self.rate(self.batches)
        self.batches += 1


def warming(rate, warmup_batches):
    """Goyal et al. 2017, section 2.2, from the rate of one rank to that of all."""
    return lambda batch: rate / RANKS * (1 + (RANKS - 1) * min(1, (batch + 1) / warmup_batches))


def fit(model, optimizer, data, epochs, callbacks=(), loss="sparse_categorical_crossentropy", **options):
    model.compile(optimizer, loss, metrics=["accuracy"])
    options = {"validation_data": (data["x_val"], data["y_val"]), "batch_size": BATCH * RANKS, **options}
    history = model.fit(
        data["x"], data["y"], epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **options
    )
    return history.history


def mnist_2020(data):
    rate = 0.001 * RANKS
    curves = fit(convolution(pool=True), keras.optimizers.Adam(rate), data, 4, [Rate(warming(rate, 18))])
    return {name: curves[name] for name in ("loss", "val_loss", "val_accuracy")}


def repeated_steps(data):
    rate, steps = 0.01 * RANKS, 12 // RANKS
    # The order of a shuffle depends on TensorFlow's own seed too, which other tests set.
    tf.random.set_seed(None)
    parts = []
    for rank in range(RANKS):
        samples = tf.data.Dataset.from_tensor_slices((data["x"], data["y"].astype("int64")))
        parts.append(samples.repeat().shuffle(200, seed=rank + 1).batch(BATCH))
    both = tf.data.Dataset.zip(*parts).map(lambda a, b: (tf.concat([a[0], b[0]], 0), tf.concat([a[1], b[1]], 0)))
    model = dense(32, softmax=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True), loss)
    fitted = model.fit(both, steps_per_epoch=steps, epochs=4, verbose=0, callbacks=[Rate(warming(rate, 2 * steps))])
    return {"loss": fitted.history["loss"]}


def plateau(data):
    wrong = (data["x_val"], (data["y_val"] * 3) % 10)
    callbacks = [
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=4, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", patience=2, factor=0.5),
    ]
    model = dense(32)
    curves = fit(model, keras.optimizers.RMSprop(0.01), data, 12, callbacks, validation_data=wrong)
    score = model.evaluate(data["x_val"], data["y_val"], verbose=0)[0]
    assert len(curves["loss"]) < 12
    everybody = [[len(curves["loss"]), score]] * RANKS
    return {"loss": curves["loss"], "val_loss": curves["val_loss"], "score": score, "everybody": everybody}


def losses_of_batches(model, optimizer, batches, data):
    """The loss of each batch, before its step; and after the first step rank 0's weights are all ranks'."""
    losses = []
    model.compile(optimizer, "sparse_categorical_crossentropy")
    for rows in batches:
        losses.append(float(model.train_on_batch(data["x"][rows], data["y"][rows])))
        model.reset_metrics()
    return losses


def loop_2019(data):
    # Each rank begins with weights of its own, and takes rank 0's after the first step.
    models = [convolution(seed=rank + 1) for rank in range(RANKS)]
    shards = [np.arange(len(data["y"]))[rank::RANKS][:BATCH] for rank in range(RANKS)]
    loss = keras.losses.SparseCategoricalCrossentropy()
    grads, first = [], []
    for model, rows in zip(models, shards, strict=True):
        with tf.GradientTape() as tape:
            value = loss(data["y"][rows], model(data["x"][rows]))
        first.append(float(value))
        grads.append(tape.gradient(value, [v.value for v in model.trainable_variables]))
    optimizer = keras.optimizers.Adam(0.001 * RANKS)
    mean = [sum(parts) / RANKS for parts in zip(*grads, strict=True)]
    optimizer.apply_gradients(zip(mean, models[0].trainable_variables, strict=True))
    rows = np.arange(len(data["y"])).reshape(-1, BATCH * RANKS)
    batches = [rows[i % len(rows)] for i in range(1, 40 // RANKS)]
    return {"loss": [np.mean(first), *losses_of_batches(models[0], optimizer, batches, data)]}


def synthetic_benchmark(data):
    batches = [np.arange(32 * RANKS)] * 16
    return {"loss": losses_of_batches(dense(), keras.optimizers.SGD(0.01), batches, data)}


def aggregated(data):
    # Four batches of 8 on each rank make a step.
    model = convolution()
    fit(model, keras.optimizers.Adadelta(1.0 * RANKS), data, 4, batch_size=8 * 4 * RANKS)
    return {"score": model.evaluate(data["x_val"], data["y_val"], verbose=0)[0]}


def loss_scale(data):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    curve = fit(dense(24, softmax=False), keras.optimizers.Adam(0.002 * RANKS), data, 3, loss=loss)["loss"]
    return {"inside": curve, "around": curve}


def logs_and_best(data):
    curves = fit(dense(32), keras.optimizers.Adam(0.01), data, 4)
    best = int(np.argmin(curves["val_loss"]))
    return {"loss": curves["loss"], "csv": curves["loss"], "events": 2, "best": best}


def resumed(data):
    model = dense()
    model.layers[-1].kernel.regularizer = keras.regularizers.L2(0.0005)
    steps = len(data["y"]) // (BATCH * RANKS)
    rates = Rate(lambda batch: 0.05 * (0.1 if batch >= 4 * steps else 1))
    curves = fit(model, keras.optimizers.SGD(0.05, momentum=0.9), data, 6, [rates])
    return {"loss": curves["loss"], "epochs": [3, 4, 5]}


def old_sessions(data):
    rate = keras.optimizers.schedules.InverseTimeDecay(0.002 * RANKS, 1, 1e-2)
    return {"loss": fit(dense(32), keras.optimizers.Adam(rate), data, 4)["loss"]}


def old_legacy(data):
    halved = {**data, "x": data["x"] * 0.5}
    return {"loss": fit(dense(), keras.optimizers.SGD(0.05 * RANKS, momentum=0.9), halved, 4)["loss"]}


CURVES = {
    curve.__name__: curve
    for curve in (
        *(mnist_2020, repeated_steps, plateau, loop_2019, synthetic_benchmark, aggregated, loss_scale, logs_and_best),
        *(resumed, old_sessions, old_legacy),
    )
}
