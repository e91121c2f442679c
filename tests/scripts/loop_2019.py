# A loop of its own, as in the TensorFlow 2 example of 2019: broadcast after the first batch, all in tf.function.
import json
import numpy as np
import tensorflow as tf
import horovod.tensorflow as hvd

hvd.init()

gpus = tf.config.experimental.list_physical_devices('GPU')
for gpu in gpus:
    tf.config.experimental.set_memory_growth(gpu, True)
if gpus:
    tf.config.experimental.set_visible_devices(gpus[hvd.local_rank()], 'GPU')

data = np.load('data.npz')
dataset = tf.data.Dataset.from_tensor_slices(
    (tf.cast(data['x'], tf.float32), tf.cast(data['y'], tf.int64)))
dataset = dataset.shard(hvd.size(), hvd.rank()).repeat().batch(16)

init = tf.keras.initializers.GlorotUniform(seed=hvd.rank() + 1)
mnist_model = tf.keras.Sequential([
    tf.keras.layers.Conv2D(8, [3, 3], activation='relu', kernel_initializer=init),
    tf.keras.layers.Flatten(),
    tf.keras.layers.Dense(10, activation='softmax', kernel_initializer=init)
])
loss = tf.losses.SparseCategoricalCrossentropy()
opt = tf.optimizers.Adam(0.001 * hvd.size())

checkpoint_dir = './checkpoints'
checkpoint = tf.train.Checkpoint(model=mnist_model, optimizer=opt)


@tf.function
def training_step(images, labels, first_batch):
    with tf.GradientTape() as tape:
        probs = mnist_model(images, training=True)
        loss_value = loss(labels, probs)

    # Horovod: add Horovod Distributed GradientTape.
    tape = hvd.DistributedGradientTape(tape)

    grads = tape.gradient(loss_value, mnist_model.trainable_variables)
    opt.apply_gradients(zip(grads, mnist_model.trainable_variables))

    # Note: broadcast should be done after the first gradient step to ensure optimizer initialization.
    if first_batch:
        hvd.broadcast_variables(mnist_model.variables, root_rank=0)
        hvd.broadcast_variables(opt.variables(), root_rank=0)

    return loss_value


losses = []
for batch, (images, labels) in enumerate(dataset.take(40 // hvd.size())):
    loss_value = training_step(images, labels, batch == 0)
    losses.append(float(hvd.allreduce(loss_value, name='loss')))
    if batch % 10 == 0 and hvd.local_rank() == 0:
        print('Step #%d\tLoss: %.6f' % (batch, loss_value))

if hvd.rank() == 0:
    checkpoint.save(checkpoint_dir)
    json.dump({'loss': losses}, open('history.json', 'w'))
