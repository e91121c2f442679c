"""`hpc-train flops TRAINER`: the operations of a network for a sample, layer by layer, and the time of a training step.

It runs in one process, with plain Keras and without Horovod; nothing is computed except with --step.
"""

import os
import resource
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.trainers import TRAINERS


@dataclass(frozen=True)
class Flops:
    """Count the parameters and floating-point operations of a network; --step times a training step as well."""

    trainer: Annotated[Literal[tuple(TRAINERS)], tyro.conf.Positional]
    """Trainer whose network is counted."""
    model: str | None = None
    """Network, as in the trainer's --model; by default deep (mnist), resnet50 (resnet) or tiramisu (climate)."""
    shape: tuple[int, int, int] | None = None
    """Height, width and channels of a sample; by default 28 28 1 (mnist), 224 224 3 (resnet) or 768 1152 16
    (climate)."""
    classes: int | None = None
    """Number of classes; by default 10 (mnist), 1000 (resnet) or 3 (climate)."""
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
    name = trainer.model if options.model is None else options.model
    shape = trainer.shape if options.shape is None else options.shape
    classes = trainer.classes if options.classes is None else options.classes
    if min(*shape, classes, options.batch_size) < 1 or options.layers < 0:
        raise UserError("--shape, --classes and --batch-size must be at least 1, --layers at least 0")
    if options.batch_size > 1 and not options.step:
        raise UserError("--batch-size is for --step; give both, or leave --batch-size out")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from hpc_train.parallel.quiet import quiet_import

    with quiet_import():
        import keras  # noqa: F401

    from hpc_train.flops import count

    model = trainer.module.network(name, shape, classes)
    parts = count.by_layer(model)
    total = sum(parts.values())
    size = " x ".join(map(str, shape))
    say(f"{model.name}, samples of {size}, {classes} classes: {model.count_params():,} parameters")
    say(f"  forward   {_readable(total)} a sample, {_readable(total / 2, 'MAC')}")
    say(f"  training  {_readable(3 * total)} a sample and step")
    widest = max((len(name) for name in parts), default=0)
    for name, made in sorted(parts.items(), key=lambda part: -part[1])[: options.layers]:
        say(f"  {name:{widest}}  {_readable(made):>11}  {made / total:6.1%}")
    if options.step:
        seconds, memory, where = time_step(model, options.batch_size)
        made = count.training(model, options.batch_size)
        samples = "1 sample" if options.batch_size == 1 else f"{options.batch_size} samples"
        say(
            f"one training step of {samples}: {seconds:.3g} s, {made / seconds / 1e12:.3g} TFLOP/s, "
            f"peak memory {memory / 2**30:.1f} GiB {where}"
        )


def time_step(model, batch: int) -> tuple[float, int, str]:
    """Time one training step on random data, without building its graph.

    Args:
        model: from (batch, *sample) float32 to logits (batch, ..., classes). It is compiled and trained.
        batch: samples in the step.

    Returns:
        Seconds, peak memory in bytes, and the owner of this memory in words.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    draw = np.random.default_rng(0)
    inputs = tf.constant(draw.normal(size=(batch, *model.input_shape[1:])).astype("float32"))
    targets = tf.constant(draw.integers(0, model.output_shape[-1], (batch, *model.output_shape[1:-1])), "int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
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
