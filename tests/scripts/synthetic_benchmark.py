# The form of the synthetic benchmarks: one batch again and again, timed.
import argparse
import json
import timeit
import numpy as np
import tensorflow as tf
import horovod.tensorflow as hvd

parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument('--fp16-allreduce', action='store_true', default=False, help='use fp16 compression')
parser.add_argument('--batch-size', type=int, default=32, help='input batch size')
parser.add_argument('--num-batches-per-iter', type=int, default=5)
parser.add_argument('--num-iters', type=int, default=3)
parser.add_argument('--no-cuda', action='store_true', default=False)
args = parser.parse_args([])
args.cuda = not args.no_cuda

hvd.init()
if args.cuda:
    gpus = tf.config.experimental.list_physical_devices('GPU')
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        tf.config.experimental.set_visible_devices(gpus[hvd.local_rank()], 'GPU')
else:
    tf.config.set_visible_devices([], 'GPU')

init = tf.keras.initializers.GlorotUniform(seed=1)
model = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(10, kernel_initializer=init)])
opt = tf.optimizers.SGD(0.01)

file = np.load('data.npz')
data = tf.constant(file['x'][hvd.rank()::hvd.size()][:args.batch_size])
target = tf.constant(file['y'][hvd.rank()::hvd.size()][:args.batch_size].reshape(-1, 1))
losses = []


@tf.function
def benchmark_step(first_batch):
    # Horovod: (optional) compression algorithm.
    compression = hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none

    # Horovod: use DistributedGradientTape
    with tf.GradientTape() as tape:
        probs = tf.nn.softmax(model(data, training=True))
        loss = tf.losses.SparseCategoricalCrossentropy()(target, probs)

    # Horovod: add Horovod Distributed GradientTape.
    tape = hvd.DistributedGradientTape(tape, compression=compression)
    gradients = tape.gradient(loss, model.trainable_variables)
    opt.apply_gradients(zip(gradients, model.trainable_variables))

    if first_batch:
        hvd.broadcast_variables(model.variables, root_rank=0)
        hvd.broadcast_variables(opt.variables(), root_rank=0)
    return loss


def log(s, nl=True):
    if hvd.rank() != 0:
        return
    print(s, end='\n' if nl else '')


def step():
    losses.append(float(hvd.allreduce(benchmark_step(first_batch=False))))


device = '/gpu:0' if args.cuda and gpus else 'CPU'
with tf.device(device):
    losses.append(float(hvd.allreduce(benchmark_step(first_batch=True))))
    img_secs = []
    for x in range(args.num_iters):
        time = timeit.timeit(step, number=args.num_batches_per_iter)
        img_secs.append(args.batch_size * args.num_batches_per_iter / time)
    log('Total img/sec on %d %s(s): %.1f' % (hvd.size(), 'GPU', hvd.size() * np.mean(img_secs)))

if hvd.rank() == 0:
    json.dump({'loss': losses}, open('history.json', 'w'))
