# The commonest form, of 2020 to 2023: the whole script by keyword arguments that Horovod's documentation named then.
import json

import numpy as np
import tensorflow as tf
import horovod.tensorflow.keras as hvd

# Horovod: initialize Horovod.
hvd.init()

# Horovod: pin GPU to be used to process local rank (one GPU per process)
gpus = tf.config.experimental.list_physical_devices('GPU')
for gpu in gpus:
    tf.config.experimental.set_memory_growth(gpu, True)
if gpus:
    tf.config.experimental.set_visible_devices(gpus[hvd.local_rank()], 'GPU')

data = np.load('data.npz')
x, y = data['x'][hvd.rank()::hvd.size()], data['y'][hvd.rank()::hvd.size()]
x_val, y_val = data['x_val'][hvd.rank()::hvd.size()], data['y_val'][hvd.rank()::hvd.size()]

init = tf.keras.initializers.GlorotUniform(seed=1)
model = tf.keras.Sequential([
    tf.keras.layers.Conv2D(8, [3, 3], activation='relu', kernel_initializer=init, input_shape=(8, 8, 1)),
    tf.keras.layers.MaxPooling2D(pool_size=(2, 2)),
    tf.keras.layers.Flatten(),
    tf.keras.layers.Dense(10, activation='softmax', kernel_initializer=init)
])

# Horovod: adjust learning rate based on number of GPUs.
scaled_lr = 0.001 * hvd.size()
opt = tf.optimizers.Adam(lr=scaled_lr)

# Horovod: add Horovod DistributedOptimizer.
opt = hvd.DistributedOptimizer(opt, backward_passes_per_step=1, average_aggregated_gradients=True)

# Horovod: Specify `experimental_run_tf_function=False` to ensure TensorFlow
# uses hvd.DistributedOptimizer() to compute gradients.
model.compile(loss=tf.losses.SparseCategoricalCrossentropy(),
              optimizer=opt,
              metrics=['accuracy'],
              experimental_run_tf_function=False)

callbacks = [
    hvd.callbacks.BroadcastGlobalVariablesCallback(0),
    hvd.callbacks.MetricAverageCallback(),
    hvd.callbacks.LearningRateWarmupCallback(initial_lr=scaled_lr, warmup_epochs=3, verbose=1),
]

# Horovod: save checkpoints only on worker 0 to prevent other workers from corrupting them.
if hvd.rank() == 0:
    callbacks.append(tf.keras.callbacks.ModelCheckpoint('./checkpoint-{epoch}.h5'))

verbose = 2 if hvd.rank() == 0 else 0
history = model.fit(x, y, batch_size=16, callbacks=callbacks, epochs=4, verbose=verbose, shuffle=False,
                    validation_data=(x_val, y_val))

if hvd.rank() == 0:
    json.dump({'loss': history.history['loss'], 'val_loss': history.history['val_loss'],
               'val_accuracy': history.history['val_accuracy']}, open('history.json', 'w'))
