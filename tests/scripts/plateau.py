# Callbacks that decide, before MetricAverageCallback and after it; the optimizer is named in a configuration.
import json
import numpy as np
import horovod.keras as hvd
import keras
from keras.callbacks import EarlyStopping, ReduceLROnPlateau, LearningRateScheduler
from keras.optimizers import *

config = {'optimizer': 'RMSprop(0.01)', 'epochs': 12}

hvd.init()
data = np.load('data.npz')
n = hvd.size()
x, y = data['x'][hvd.rank()::n], keras.utils.to_categorical(data['y'], 10)[hvd.rank()::n]
# Half of the labels are made wrong, so that validation gets worse.
val = data['x_val'][hvd.rank()::n], keras.utils.to_categorical((data['y_val'] * 3) % 10, 10)[hvd.rank()::n]

init = keras.initializers.GlorotUniform(seed=1)
inputs = keras.layers.Input(shape=(8, 8, 1))
net = keras.layers.Flatten()(inputs)
net = keras.layers.Dense(32, activation='relu', kernel_initializer=init)(net)
outputs = keras.layers.Dense(10, activation='softmax', kernel_initializer=init)(net)
model = keras.models.Model(inputs, outputs)

opt = hvd.DistributedOptimizer(eval(config['optimizer']))
model.compile(optimizer=opt, loss='categorical_crossentropy', metrics=['acc'])

callbacks = [
    EarlyStopping(monitor='val_loss', patience=4, restore_best_weights=True),
    hvd.callbacks.BroadcastGlobalVariablesCallback(0),
    hvd.callbacks.MetricAverageCallback(),
    ReduceLROnPlateau(monitor='val_loss', patience=2, factor=0.5, verbose=hvd.rank() == 0),
]
history = model.fit(x, y, batch_size=16, epochs=config['epochs'], callbacks=callbacks, shuffle=False, verbose=0,
                    validation_data=val)
score = model.evaluate(data['x_val'], keras.utils.to_categorical(data['y_val'], 10), verbose=0)
everybody = hvd.allgather([[len(history.history['loss']), score[0]]])
if hvd.rank() == 0:
    curves = {k: [float(v) for v in history.history[k]] for k in ('loss', 'val_loss')}
    json.dump({**curves, 'score': score[0], 'everybody': everybody.numpy().tolist()}, open('history.json', 'w'))
