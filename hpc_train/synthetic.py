"""`--data synthetic`: one batch of random images, given again and again, to measure computing without input."""

from dataclasses import replace

import numpy as np

from hpc_train import parallel
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.layout import SHARDS
from hpc_train.data.order import FullOrder, Order
from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.errors import UserError
from hpc_train.parallel.world import World

SYNTHETIC = "synthetic"
_CLASSES = 1000


class Synthetic:
    """Stands in for `feed.Feed`, with the same surface; nothing is read, shuffled or decoded.

    Images are random bytes, (image_size, image_size, 3), and labels random classes; each rank draws one batch from the
    seed and its rank. An epoch has `synthetic_samples` samples, and validation one batch a rank.
    Raises UserError, on every rank, for options that are impossible.
    """

    error = None

    def __init__(self, options, world: World):
        self.options, self.world = options, world
        self.comm = parallel.Ranks(world)
        for name in ("image_size", "synthetic_samples", "classes"):
            value = getattr(options, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1").agreed()
        for name, given in (
            ("test-data", options.test_data),
            ("inputs", options.inputs),
            ("targets", options.targets),
            ("layout", options.layout != "auto"),
        ):
            if given:
                raise UserError(f"--{name} goes with data in files, not with --data synthetic; leave it out").agreed()
        self.training = self._catalogue()
        held_out = world.size * options.batch_size
        self.held_out = replace(self.training, split="validation", offsets=np.array([0, held_out]))

    def order(self, recorded: dict | None) -> Order:
        """The order of an epoch, which makes no difference."""
        return FullOrder(self.training.samples, self.options.seed)

    def batches(self, plan: TrainPlan, epoch: int, position: int, steps: int):
        """The batch, `steps` times."""
        return self._repeated(plan.batch_size, steps)

    def validation(self, plan: ValidationPlan):
        """The batch of this rank's share, in each step."""
        return self._repeated(plan.batch_size, plan.steps)

    def description(self, plan: TrainPlan) -> list[str]:
        """What the data are, in a line."""
        size = self.options.image_size
        return [f"synthetic: the same {plan.batch_size} random images of {size} x {size} x 3 bytes at every step"]

    def _catalogue(self) -> Catalogue:
        options, classes = self.options, self.options.classes or _CLASSES
        samples, size = options.synthetic_samples, options.image_size
        return Catalogue(
            directory=SYNTHETIC,
            split="train",
            layout=SHARDS,
            files=(SYNTHETIC,),
            sizes=np.zeros(1, np.int64),
            offsets=np.array([0, samples]),
            at=np.zeros((1, 2), np.int64),
            input_shape=(size, size, 3),
            input_dtype=np.dtype(np.uint8),
            target_shape=(),
            target_dtype=np.dtype(np.int32),
            packing=((1.0, 0.0),),
            channels="last",
            classes=classes,
            class_names=(),
            fingerprint=f"{SYNTHETIC} {samples} {size} {classes}",
        )

    def _repeated(self, batch_size: int, steps: int):
        import tensorflow as tf

        draw = np.random.default_rng([self.options.seed % 2**64, self.world.rank])
        images = draw.integers(0, 256, (batch_size, *self.training.input_shape), np.uint8)
        labels = draw.integers(0, self.training.classes, batch_size, np.int32)
        # On a GPU it is copied there while the step before runs: `tf.data` holds its tensors in host memory.
        data = tf.data.Dataset.from_tensors((images, labels)).repeat(steps)
        if tf.config.list_logical_devices("GPU"):
            return data.apply(tf.data.experimental.prefetch_to_device("/gpu:0", 2))
        return data
