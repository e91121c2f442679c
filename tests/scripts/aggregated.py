# Compression and local aggregation, with Adadelta and keras imported by itself.
import json
import keras
import numpy as np
import horovod.keras as hvd
from keras.layers import Conv2D, Dense, Flatten
from keras.models import Sequential

hvd.init()
data = np.load('data.npz')
x_train = data['x'][hvd.rank()::hvd.size()].astype('float32')
y_train = keras.utils.to_categorical(data['y'][hvd.rank()::hvd.size()], 10)

init = keras.initializers.GlorotUniform(seed=1)
model = Sequential()
model.add(Conv2D(8, kernel_size=(3, 3), activation='relu', kernel_initializer=init, input_shape=(8, 8, 1)))
model.add(Flatten())
model.add(Dense(10, activation='softmax', kernel_initializer=init))

# Horovod: adjust learning rate based on number of GPUs.
opt = keras.optimizers.Adadelta(1.0 * hvd.size())
opt = hvd.DistributedOptimizer(opt, compression=hvd.Compression.fp16, backward_passes_per_step=4,
                               average_aggregated_gradients=True)
model.compile(loss=keras.losses.categorical_crossentropy, optimizer=opt, metrics=['accuracy'],
              experimental_run_tf_function=False)
history = model.fit(x_train, y_train, batch_size=8, epochs=4, shuffle=False, verbose=0, callbacks=[
    hvd.callbacks.BroadcastGlobalVariablesCallback(0), hvd.callbacks.MetricAverageCallback()])
score = model.evaluate(data['x_val'], keras.utils.to_categorical(data['y_val'], 10), verbose=0)
if hvd.rank() == 0:
    print('Test loss:', score[0])
    json.dump({'score': score[0]}, open('history.json', 'w'))
