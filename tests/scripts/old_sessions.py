# port: Keras 2 with TensorFlow 1's sessions, as in the example of 2018; it needs `hpc-train port --write`.
import json
import numpy as np
import keras
from keras.models import Sequential
from keras.layers import Dense, Flatten
from keras import backend as K
from keras.utils import np_utils
import tensorflow as tf
import horovod.keras as hvd

# Horovod: initialize Horovod.
hvd.init()

# Horovod: pin GPU to be used to process local rank (one GPU per process)
config = tf.ConfigProto()
config.gpu_options.allow_growth = True
config.gpu_options.visible_device_list = str(hvd.local_rank())
K.set_session(tf.Session(config=config))

data = np.load('data.npz')
x = data['x'][hvd.rank()::hvd.size()]
y = np_utils.to_categorical(data['y'][hvd.rank()::hvd.size()], 10)

init = keras.initializers.glorot_uniform(seed=1)
model = Sequential()
model.add(Flatten(input_shape=(8, 8, 1)))
model.add(Dense(32, activation='relu', kernel_initializer=init))
model.add(Dense(10, activation='softmax', kernel_initializer=init))

opt = keras.optimizers.Adam(lr=0.002 * hvd.size(), decay=1e-2)
opt = hvd.DistributedOptimizer(opt)
model.compile(loss=keras.losses.categorical_crossentropy, optimizer=opt, metrics=['accuracy'])


def batches():
    while True:
        for start in range(0, len(x), 16):
            yield x[start:start + 16], y[start:start + 16]


history = model.fit_generator(batches(), steps_per_epoch=len(x) // 16, epochs=4, workers=1,
                              callbacks=[hvd.callbacks.BroadcastGlobalVariablesCallback(0),
                                         hvd.callbacks.MetricAverageCallback()],
                              verbose=1 if hvd.rank() == 0 else 0)
if hvd.rank() == 0:
    json.dump({'loss': [float(v) for v in history.history['loss']]}, open('history.json', 'w'))
