"""A network for tables of numbers: it predicts one number, or several, from the columns of a row.

    horovodrun -np 2 python -m hpc_train.fit examples/tabular_regression.py:build --data DIR --inputs x --targets y \\
        --loss mse --metrics mae R2Score --epochs 40

DIR has train/ and validation/ with HDF5 files; in them x is (rows, columns) and y is (rows,) or (rows, numbers). A CSV
file becomes such data by `hpc-train prepare csv`; these need no --inputs and --targets. Large targets, such as prices,
learn better with `--normalise targets`, for which `hpc-train stats` counts them.
"""

import math

import keras
from keras import layers


def build(catalogue):
    """The network, not compiled: the options choose loss, metrics and optimizer."""
    columns = keras.Input(catalogue.input_shape)
    # In place of normalised columns: learned from each batch, and saved with the model.
    x = layers.BatchNormalization(momentum=0.9)(columns)
    for width in (64, 32):
        x = layers.Dense(width, "relu")(x)
    numbers = math.prod(catalogue.target_shape)
    return keras.Model(columns, layers.Reshape(catalogue.target_shape or (1,))(layers.Dense(numbers)(x)))
