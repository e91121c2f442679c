# Logs and the best checkpoint on rank 0; the best epoch must be that of all ranks' samples.
import csv
import json
import os
import numpy as np
import tensorflow as tf
from tensorflow import keras
import horovod.tensorflow.keras as hvd

hvd.init()
is_main = hvd.rank() == 0
data = np.load('data.npz')
x, y = data['x'], data['y']
train = np.arange(len(x))[hvd.rank()::hvd.size()]

init = keras.initializers.GlorotUniform(seed=1)
model = keras.Sequential([
    keras.layers.Flatten(input_shape=[8, 8, 1]),
    keras.layers.Dense(32, activation='relu', kernel_initializer=init),
    keras.layers.Dense(10, activation='softmax', kernel_initializer=init),
])
model.compile(loss='sparse_categorical_crossentropy', metrics=['accuracy'],
              optimizer=hvd.DistributedOptimizer(keras.optimizers.Adam(0.01)))

callbacks = []
if is_main:
    callbacks += [
        keras.callbacks.ModelCheckpoint('best.h5', monitor='val_loss', save_best_only=True),
        keras.callbacks.TensorBoard('logs', profile_batch=0),
        keras.callbacks.CSVLogger('log.csv'),
    ]
callbacks += [hvd.callbacks.BroadcastGlobalVariablesCallback(0), hvd.callbacks.MetricAverageCallback()]

history = model.fit(x[train], y[train], 16, epochs=4, shuffle=False, callbacks=callbacks, verbose=int(is_main) * 2,
                    validation_data=(data['x_val'][hvd.rank()::hvd.size()], data['y_val'][hvd.rank()::hvd.size()]))
hvd.allreduce([0], name='Barrier')
if is_main:
    model.save('last.h5')
    rows = list(csv.DictReader(open('log.csv')))
    json.dump({'loss': history.history['loss'], 'csv': [float(row['loss']) for row in rows],
               'events': len(os.listdir('logs')), 'best': int(np.argmin(history.history['val_loss']))},
              open('history.json', 'w'))
