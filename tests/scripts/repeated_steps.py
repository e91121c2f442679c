# As mnist_2020.py, with the data as tf.data, shuffled by each rank for itself, and a warm-up as before Horovod 0.20.
import json
import tensorflow as tf
import numpy as np
import horovod.tensorflow.keras as hvd

hvd.init()
gpus = tf.config.list_physical_devices('GPU')
if gpus:
    tf.config.set_visible_devices(gpus[hvd.local_rank()], 'GPU')

data = np.load('data.npz')
dataset = tf.data.Dataset.from_tensor_slices(
    (tf.cast(data['x'], tf.float32), tf.cast(data['y'], tf.int64))
)
dataset = dataset.repeat().shuffle(10000 // 50, seed=hvd.rank() + 1).batch(16)

init = tf.keras.initializers.GlorotUniform(seed=1)
model = tf.keras.Sequential()
model.add(tf.keras.layers.Flatten(input_shape=(8, 8, 1)))
model.add(tf.keras.layers.Dense(32, activation='relu', kernel_initializer=init))
model.add(tf.keras.layers.Dense(10, kernel_initializer=init))

opt = tf.keras.optimizers.SGD(momentum=0.9, nesterov=True, lr=0.01 * hvd.size())
opt = hvd.DistributedOptimizer(opt)

model.compile(loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer=opt,
              metrics=['accuracy'], experimental_run_tf_function=False)

callbacks = [
    # Scale the learning rate `lr = 1.0` ---> `lr = 1.0 * hvd.size()` during the first two epochs.
    hvd.callbacks.LearningRateWarmupCallback(warmup_epochs=2, momentum_correction=False, verbose=1),
    hvd.callbacks.MetricAverageCallback(),
    hvd.callbacks.BroadcastGlobalVariablesCallback(0),
]
history = model.fit(dataset, steps_per_epoch=12 // hvd.size(), callbacks=callbacks, epochs=4,
                    verbose=1 if hvd.rank() == 0 else 0)
hvd.allreduce([0], name='Barrier')
if hvd.rank() == 0:
    model.save('model.h5')
    with open('history.json', 'w') as f:
        json.dump({'loss': [float(v) for v in history.history['loss']]}, f)
