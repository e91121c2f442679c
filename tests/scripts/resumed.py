# The form of the ImageNet example: generators, a schedule in stairs, and a restart from the last checkpoint.
import json
import os
import numpy as np
import keras
import horovod.keras as hvd

hvd.init()
checkpoint_format = 'checkpoint-{epoch}.h5'

# If set > 0, will resume training from a given checkpoint.
resume_from_epoch = 0
for try_epoch in range(6, 0, -1):
    if os.path.exists(checkpoint_format.format(epoch=try_epoch)):
        resume_from_epoch = try_epoch
        break

# Horovod: broadcast resume_from_epoch from rank 0 (which will have checkpoints) to other ranks.
resume_from_epoch = hvd.broadcast(resume_from_epoch, 0, name='resume_from_epoch')
epochs = 3 if resume_from_epoch == 0 else 6

data = np.load('data.npz')


def generator(x, y, batch_size):
    while True:
        for start in range(0, len(x) - batch_size + 1, batch_size):
            yield x[start:start + batch_size], y[start:start + batch_size]


train_iter = generator(data['x'][hvd.rank()::hvd.size()], data['y'][hvd.rank()::hvd.size()], 16)
test_iter = generator(data['x_val'][hvd.rank()::hvd.size()], data['y_val'][hvd.rank()::hvd.size()], 16)

if resume_from_epoch > 0 and hvd.rank() == 0:
    # Restore from a previous checkpoint.
    model = hvd.load_model(checkpoint_format.format(epoch=int(resume_from_epoch)),
                           compression=hvd.Compression.none)
else:
    init = keras.initializers.GlorotUniform(seed=1)
    model = keras.Sequential([
        keras.layers.Flatten(input_shape=(8, 8, 1)),
        keras.layers.Dense(10, activation='softmax', kernel_initializer=init,
                           kernel_regularizer=keras.regularizers.l2(0.0005)),
    ])
    opt = keras.optimizers.SGD(0.05, momentum=0.9)
    opt = hvd.DistributedOptimizer(opt, compression=hvd.Compression.none)
    model.compile(loss=keras.losses.sparse_categorical_crossentropy, optimizer=opt, metrics=['accuracy'])

initial_lr = 0.05
callbacks = [
    hvd.callbacks.BroadcastGlobalVariablesCallback(0),
    hvd.callbacks.MetricAverageCallback(),
    hvd.callbacks.LearningRateScheduleCallback(initial_lr=initial_lr, multiplier=1., start_epoch=0, end_epoch=4,
                                               momentum_correction=False),
    hvd.callbacks.LearningRateScheduleCallback(initial_lr=initial_lr, multiplier=lambda epoch: 1e-1, start_epoch=4,
                                               momentum_correction=False),
]
if hvd.rank() == 0:
    callbacks.append(keras.callbacks.ModelCheckpoint(checkpoint_format))

history = model.fit(train_iter, steps_per_epoch=len(data['x']) // (16 * hvd.size()), callbacks=callbacks,
                    epochs=epochs, verbose=0, initial_epoch=resume_from_epoch,
                    validation_data=test_iter, validation_steps=len(data['x_val']) // (16 * hvd.size()))
if hvd.rank() == 0:
    before = json.load(open('history.json'))['loss'] if os.path.exists('history.json') else []
    json.dump({'loss': before + history.history['loss'], 'epochs': history.epoch}, open('history.json', 'w'))
