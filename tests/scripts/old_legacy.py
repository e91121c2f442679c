# port: TensorFlow 2.11 to 2.13 with legacy optimizers, as sites advised then; it needs `hpc-train port --write`.
import json
import numpy as np
import tensorflow as tf
import horovod.tensorflow.keras as hvd

hvd.init()
tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
data = np.load('data.npz')
x, y = data['x'][hvd.rank()::hvd.size()], data['y'][hvd.rank()::hvd.size()]

init = tf.keras.initializers.GlorotUniform(seed=1)
model = tf.keras.Sequential([
    tf.keras.layers.Flatten(input_shape=(8, 8, 1)),
    tf.keras.layers.experimental.preprocessing.Rescaling(0.5),
    tf.keras.layers.Dense(10, activation='softmax', kernel_initializer=init),
])
opt = tf.keras.optimizers.legacy.SGD(lr=0.05 * hvd.size(), momentum=0.9)
opt = hvd.DistributedOptimizer(opt)
model.compile(loss='sparse_categorical_crossentropy', optimizer=opt, experimental_run_tf_function=False)
cbs = [hvd.callbacks.BroadcastGlobalVariablesCallback(0), hvd.callbacks.MetricAverageCallback()]
history = model.fit(x, y, batch_size=16, epochs=4, callbacks=cbs, shuffle=False, verbose=0, workers=2,
                    use_multiprocessing=False)
if hvd.rank() == 0:
    json.dump({'loss': history.history['loss']}, open('history.json', 'w'))
