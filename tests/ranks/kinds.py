"""Run on N ranks by test_kinds.py: inputs and targets of every kind, from files to the weights after ten steps."""

import sys
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from checks import write_outcomes

from hpc_train import parallel, training

world = parallel.init(seed=0, keras_defaults=True)

import h5py  # noqa: E402
import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from hpc_train.data.options import DataOptions, ScaleOptions  # noqa: E402
from hpc_train.data.statistics.command import count  # noqa: E402
from hpc_train.data.statistics.file import write_all  # noqa: E402
from hpc_train.errors import UserError  # noqa: E402
from hpc_train.parallel.collectives import gather_objects  # noqa: E402
from hpc_train.training.assembly import assemble  # noqa: E402

FOLDER = Path(parallel.broadcast_object(sys.argv[1])).parent / "data"
ROWS, STEPS, RATE = 60, 10, 0.05
# Data sets of one row: a number, a vector, a map, a volume, classes, a series, tokens.
SHAPES = {"number": (), "vector": (3,), "map": (4, 6), "volume": (3, 4, 2, 2), "series": (5, 2), "weight": ()}


@dataclass(frozen=True)
class Options(ScaleOptions, training.Options):
    """Of a model of one's own."""


def write() -> dict[str, np.ndarray]:
    """The data sets, which rank 0 also writes; "flat" holds sequences of `counts` steps, one after the other."""
    draw = np.random.default_rng(0)
    held = {name: draw.normal(size=(ROWS, *shape)).astype("f4") for name, shape in SHAPES.items()}
    held["weight"] = draw.random(ROWS).astype("f4")
    held["class"], held["tokens"] = draw.integers(0, 3, ROWS), draw.integers(0, 9, (ROWS, 5))
    held["mask"] = draw.integers(0, 2, (ROWS, 4, 6)).astype("u1") * 255
    held["counts"] = draw.integers(1, 6, ROWS)
    held["flat"] = draw.integers(1, 9, held["counts"].sum())
    held["packed"] = draw.integers(-9, 9, (ROWS, 3)).astype("i2")
    if world.is_root:
        for split in ("train", "validation"):
            (FOLDER / split).mkdir(parents=True, exist_ok=True)
            with h5py.File(FOLDER / split / "a.h5", "w") as file:
                for name, array in held.items():
                    file[name] = array
                file["packed"].attrs.update(scale_factor=0.25, add_offset=1.0)
    gather_objects(None)
    return held


HELD = write()


def dense(inputs: dict, outputs: dict, catalogue=None):
    """A small network from inputs {name: shape} to outputs {name: shape}; without names it has one of each."""
    ends = {name: keras.Input(shape, name=name or None) for name, shape in inputs.items()}
    flat = [keras.layers.Reshape((prod(shape),))(ends[name]) for name, shape in inputs.items()]
    x = keras.layers.Dense(4, activation="tanh")(keras.layers.concatenate(flat) if len(flat) > 1 else flat[0])
    made = {name: keras.layers.Reshape(shape)(keras.layers.Dense(prod(shape))(x)) for name, shape in outputs.items()}
    return keras.Model(ends.get("", ends), made.get("", made))


def tokens(catalogue=None):
    """A network of sequences of tokens, of which 0 is padding."""
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    return keras.Sequential([keras.Input((None,)), embedding, keras.layers.GRU(4), keras.layers.Dense(1)])


def compare(build, x, y, w=None, loss="mse", **named):
    """Ten steps of `build` on data sets `named` by options, and of one process on the arrays x, y and w."""
    size = 6 // world.size
    how = {"batch_size": size, "optimizer": "sgd", "momentum": 0.0, "nesterov": False, "lr": RATE, "weight_decay": 0.0}
    flat = {"lr_scaling": "none", "warmup_epochs": 0.0, "decay": "none", "histograms": False}
    options = Options(data=FOLDER, **how, **flat, **named)
    assembly = assemble(options, training.Task("kinds", build, loss=loss), world)
    ours, plan = assembly.model, assembly.plan
    alone = build()
    alone.compile(keras.optimizers.SGD(RATE), loss)
    alone.set_weights(gather_objects(ours.get_weights())[0])
    batches = assembly.feed.batches(plan, 0, 0, STEPS)
    ours.optimizer.learning_rate = RATE
    ours.fit(batches, steps_per_epoch=STEPS, callbacks=parallel.callbacks(), shuffle=False, verbose=0)
    for step in range(STEPS):
        rows = np.concatenate([plan.indices(0, step, rank) for rank in range(world.size)])
        pick = partial(keras.tree.map_structure, lambda array, rows=rows: array[rows])
        alone.train_on_batch(pick(x), pick(y), sample_weight=None if w is None else w[rows])
    for a, b in zip(ours.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def numbers_vectors_maps_and_volumes_are_targets():
    for name in ("number", "vector", "map", "volume"):
        shape = SHAPES[name]
        build = partial(dense, {"": (3,)}, {"": shape or (1,)})
        target = HELD[name] if shape else HELD[name][:, None]
        compare(build, HELD["vector"], target, inputs=("vector",), targets=(name,))


def inputs_of_one_to_four_axes_are_targets_too():
    for name in ("vector", "map", "series", "volume"):
        compare(partial(dense, {"": SHAPES[name]}, {"": SHAPES[name]}), HELD[name], HELD[name], inputs=(name,))


def several_named_inputs_and_targets_come_by_their_names_with_weights():
    build = partial(dense, {"a": (4, 6), "b": (3,)}, {"y": (3, 4, 2, 2), "z": (5, 2)})
    x, y = {"a": HELD["map"], "b": HELD["vector"]}, {"y": HELD["volume"], "z": HELD["series"]}
    names = {"inputs": ("a=map", "b=vector"), "targets": ("y=volume", "z=series")}
    compare(build, x, y, **names)
    with pytest.raises(UserError, match=r"one number a sample, .* but the target y has the axes \(3, 4, 2, 2\)"):
        compare(build, x, y, sample_weights="weight", **names)
    build = partial(dense, {"a": (4, 6), "b": (3,)}, {"y": (3,), "z": (1,)})
    names = {"inputs": ("a=map", "b=vector"), "targets": ("y=vector", "z=number"), "sample_weights": "weight"}
    compare(build, x, {"y": HELD["vector"], "z": HELD["number"][:, None]}, HELD["weight"], **names)


def class_numbers_and_masks_are_labels():
    loss = "sparse_categorical_crossentropy"
    softmax = lambda catalogue=None: keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])  # noqa: E731
    compare(softmax, HELD["vector"], HELD["class"], loss=loss, inputs=("vector",), targets=("class",), classes=3)

    def maps(catalogue=None):
        first = keras.layers.Reshape((4, 6, 1))
        return keras.Sequential([keras.Input((4, 6)), first, keras.layers.Conv2D(2, 3, padding="same"), softmax_axis()])

    def softmax_axis():
        return keras.layers.Softmax()

    names = {"inputs": ("map",), "targets": ("mask",), "label_values": ("0", "255")}
    compare(maps, HELD["map"], HELD["mask"] // 255, loss=loss, **names)


def sequences_are_padded_or_come_one_after_the_other():
    target = HELD["number"][:, None]
    compare(tokens, HELD["tokens"], target, inputs=("tokens",), targets=("number",))
    padded, ends = np.zeros((ROWS, 5), int), np.cumsum(HELD["counts"])
    for row, (end, steps) in enumerate(zip(ends, HELD["counts"], strict=True)):
        padded[row, :steps] = HELD["flat"][end - steps : end]
    compare(tokens, padded, target, inputs=("flat",), targets=("number",), lengths=("counts",))


def packed_and_normalised_values_are_scaled():
    real = HELD["packed"] * 0.25 + 1
    build = partial(dense, {"": (3,)}, {"": (3,)})
    compare(build, real.astype("f4"), real.astype("f4"), inputs=("packed",), targets=("packed",))
    names = {"inputs": ("vector",), "targets": ("packed",)}
    if world.is_root:
        catalogue = DataOptions(data=FOLDER, **names).catalogue("train")
        write_all(FOLDER, count(catalogue, 0, ROWS))
    gather_objects(None)
    # A row of inputs is one channel, each number of a target is one.
    x = (HELD["vector"] - HELD["vector"].mean(dtype="f8")) / HELD["vector"].std(dtype="f8")
    y = (real - real.mean(0)) / real.std(0)
    compare(build, x.astype("f4"), y.astype("f4"), normalise=("inputs", "targets"), **names)


CHECKS = [value for name, value in list(globals().items()) if name.count("_") >= 4 and callable(value)]


if __name__ == "__main__":
    write_outcomes(CHECKS, world)
    hvd.shutdown()
