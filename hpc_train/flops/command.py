"""`hpc-train flops TRAINER`: the operations of a network for a sample, layer by layer, and the time of a training step.

It runs in one process, with plain Keras and without Horovod; nothing is computed except with --step.
"""

import os
import resource
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpc_train.console import say
from hpc_train.data.options import DataOptions
from hpc_train.errors import UserError
from hpc_train.trainers import TRAINERS

# Of the data, which only a model of the user's own needs.
_OF_DATA = tuple(field.name for field in fields(DataOptions) if field.name != "classes")


@dataclass(frozen=True, kw_only=True)
class Flops(DataOptions):
    """Count the parameters and floating-point operations of a network; --step times a training step as well.

    For a model of your own: `hpc-train flops fit mine.py:build --data DIR`, with the options of the data.
    """

    trainer: Annotated[Literal[tuple(TRAINERS)], tyro.conf.Positional]
    """Trainer whose network is counted."""
    build: Annotated[str, tyro.conf.Positional] = ""
    """With fit: FILE.py:FUNCTION of your model."""
    build_args: tuple[str, ...] = ()
    """With fit: arguments for the function, as in training."""
    data: Path | None = None
    """With fit: the data whose catalogue your function gets, as for training."""
    model: str | None = None
    """Network, as in the trainer's --model; by default deep (mnist), resnet50 (resnet) or tiramisu (climate)."""
    shape: tuple[int, int, int] | None = None
    """Height, width and channels of a sample; by default 28 28 1 (mnist), 224 224 3 (resnet) or 768 1152 16
    (climate)."""
    classes: int | None = None
    """Number of classes; by default 10 (mnist), 1000 (resnet), 3 (climate) or what the files say (fit)."""
    layers: int = 10
    """Number of layers to list, largest first."""
    step: bool = False
    """Time one training step in float32 on random data (forward, backward and Adam's update), and show peak memory."""
    batch_size: int = 1
    """With --step: samples in the step."""


def run(options: Flops) -> None:
    """Print the table.

    Raises:
        UserError: no such network, or a shape that it does not take.
    """
    trainer = TRAINERS[options.trainer]
    _check_own(options, trainer)
    name = trainer.model if options.model is None else options.model
    shape = trainer.shape if options.shape is None else options.shape
    classes = trainer.classes if options.classes is None else options.classes
    if min(*shape, options.batch_size, classes if trainer.model else 1) < 1 or options.layers < 0:
        raise UserError("--shape, --classes and --batch-size must be at least 1, --layers at least 0")
    if options.batch_size > 1 and not options.step:
        raise UserError("--batch-size is for --step; give both, or leave --batch-size out")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from hpc_train.parallel.quiet import quiet_import

    with quiet_import():
        import keras  # noqa: F401

    from hpc_train.flops import count

    if options.build:
        catalogue = options.catalogue()
        model, size = trainer.module.network(options.build, catalogue, options.build_args), catalogue.sample_text
        # Sides that the network leaves open are those of the data.
        shape = catalogue.inputs[0].shape if len(catalogue.inputs) == 1 else None
    else:
        model = trainer.module.network(name, shape, classes)
        size, shape = f"{' x '.join(map(str, shape))}{f', {classes} classes' if classes else ''}", None
    parts = count.by_layer(model, shape)
    total = sum(parts.values())
    say(f"{model.name}, samples of {size}: {model.count_params():,} parameters")
    say(f"  forward   {_readable(total)} a sample, {_readable(total / 2, 'MAC')}")
    say(f"  training  {_readable(3 * total)} a sample and step")
    widest = max((len(name) for name in parts), default=0)
    for name, made in sorted(parts.items(), key=lambda part: -part[1])[: options.layers]:
        say(f"  {name:{widest}}  {_readable(made):>11}  {made / total:6.1%}")
    if options.step:
        seconds, memory, where = time_step(model, options.batch_size, labels=not options.build)
        made = count.training(model, options.batch_size)
        samples = "1 sample" if options.batch_size == 1 else f"{options.batch_size} samples"
        say(
            f"one training step of {samples}: {seconds:.3g} s, {made / seconds / 1e12:.3g} TFLOP/s, "
            f"peak memory {memory / 2**30:.1f} GiB {where}"
        )


def _check_own(options: Flops, trainer) -> None:
    """Refuse options of a trainer's network with a model of the user's own, and the other way round."""
    if trainer.model:
        own = ("build", "build_args", *_OF_DATA)
        given = next((name for name in own if getattr(options, name) != getattr(Flops, name)), None)
        if given:
            option = given if given == "build" else f"--{given.replace('_', '-')}"
            raise UserError(f"{option} is for `hpc-train flops fit`; leave it out")
    elif not (options.build and options.data):
        raise UserError("flops fit needs your function and data: hpc-train flops fit mine.py:build --data DIR")
    elif options.model or options.shape:
        raise UserError("--model and --shape are for the networks of the suite; leave them out with fit")


def time_step(model, batch: int, labels: bool = True) -> tuple[float, int, str]:
    """Time one training step on random data, without building its graph.

    Args:
        model: from (batch, *sample) float32 to an output (batch, ...). It is compiled and trained.
        batch: samples in the step.
        labels: whether the output is logits of classes; else it is compared with values of its shape.

    Returns:
        Seconds, peak memory in bytes, and the owner of this memory in words.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    draw = np.random.default_rng(0)
    if len(model.inputs) > 1 or len(model.outputs) > 1:
        raise UserError("--step is for networks with one input and one output; leave it out")
    inputs = tf.constant(draw.normal(size=(batch, *model.input_shape[1:])).astype("float32"))
    if labels:
        targets = tf.constant(draw.integers(0, model.output_shape[-1], (batch, *model.output_shape[1:-1])), "int32")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        targets = tf.constant(draw.normal(size=(batch, *model.output_shape[1:])).astype("float32"))
        loss = keras.losses.MeanSquaredError()
    model.compile(keras.optimizers.Adam(1e-4), loss)
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda x, y: model.train_step((x, y))).get_concrete_function(inputs, targets)
    begun = time.perf_counter()
    # The loss is a mean over all samples: when its value is there, the step has ended, on a device as well.
    float(step(inputs, targets)["loss"])
    seconds = time.perf_counter() - begun
    if tf.config.get_visible_devices("GPU"):
        return seconds, tf.config.experimental.get_memory_info("GPU:0")["peak"], "of the GPU"
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "of this process"


def _readable(number: float, unit: str = "FLOP") -> str:
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.4g} {prefix}{unit}"
    return f"{number:.0f} {unit}"
