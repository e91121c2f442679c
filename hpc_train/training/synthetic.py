"""`--data synthetic`: the same batch of random images or fields at every step, to compute without input."""

from dataclasses import replace
from typing import Any

import numpy as np

from hpc_train import parallel
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.layout import SHARDS
from hpc_train.data.catalogue.part import Kind, Part
from hpc_train.data.fields.options import FieldOptions
from hpc_train.data.fields.synthetic import sample_of_fields
from hpc_train.data.options import SYNTHETIC
from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.plan.order import FullOrder, Order
from hpc_train.errors import UserError
from hpc_train.parallel.world import World

_CLASSES = 1000
_OF_FILES = ("class_map", "ignore_label", "annotation", "augment", "random_crop", "meridional")


class Synthetic:
    """Data with the methods of `feed.Feed`, but nothing is read, shuffled or decoded.

    Images are random bytes, (image_size, image_size, 3), and labels random classes. For a trainer on fields, samples
    are standard normal, float32 (*field_size, 16), with the names of CAM5's channels, and each pixel has a random
    class, uint8. Each rank draws one batch from the seed and its rank. An epoch has `synthetic_samples` samples, and
    validation one batch a rank.

    Args:
        options: of the trainer.
        world: the ranks.

    Raises:
        UserError: on every rank, for impossible options.
    """

    error = None

    def __init__(self, options, world: World):
        self.options, self.world = options, world
        self.maps = isinstance(options, FieldOptions)
        self.comm = parallel.Ranks(world)
        for name in ("image_size", "synthetic_samples", "classes"):
            value = getattr(options, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1").agreed()
        if self.maps and options.image_size != type(options).image_size:
            raise UserError("--image-size is for images; --field-size sets the size of synthetic maps").agreed()
        given = {"layout": options.layout != "auto"}
        given |= {
            name: bool(getattr(options, name))
            for name in ("test_data", "inputs", "targets", "test_inputs", "class_names")
        }
        if self.maps:
            given |= {name: getattr(options, name) != getattr(type(options), name) for name in _OF_FILES}
        if wrong := [name.replace("_", "-") for name in given if given[name]]:
            raise UserError(f"--{wrong[0]} goes with data in files, not with --data synthetic; leave it out").agreed()
        self.training = self._catalogue()
        held_out = world.size * options.batch_size
        self.held_out = replace(self.training, split="validation", offsets=np.array([0, held_out]))

    @property
    def facts(self) -> dict:
        """Values that a resumed run must share: none."""
        return {}

    def give_inputs_alone(self) -> None:
        """As `Feed`; there are always targets."""

    def order(self, recorded: dict | None) -> Order:
        """The order of an epoch; any order gives the same batches."""
        return FullOrder(self.training.samples, self.options.seed)

    def batches(self, plan: TrainPlan, epoch: int, position: int, steps: int):
        """This rank's batch, `steps` times."""
        return self._repeated(plan.batch_size, steps)

    def handed(self, plan: TrainPlan, epoch: int, position: int, steps: int) -> None:
        """As `Feed.handed`: `tf.data` has the batch."""

    def validation(self, plan: ValidationPlan):
        """This rank's batch, at each validation step."""
        return self._repeated(plan.batch_size, plan.steps)

    def description(self, plan: TrainPlan) -> list[str]:
        """What the data are, in one line."""
        shape = " x ".join(map(str, self.training.input_shape))
        what = f"maps of {shape} float32" if self.maps else f"images of {shape} bytes"
        return [f"synthetic: the same {plan.batch_size} random {what} at every step"]

    def _catalogue(self) -> Catalogue:
        options, samples = self.options, self.options.synthetic_samples
        size = options.image_size
        image: dict[str, Any] = {
            "layout": SHARDS,
            "kinds": (Kind((size, size, 3), "|u1"), Kind((), "<i4")),
            "classes": options.classes or _CLASSES,
            "class_names": (),
            "fingerprint": f"{SYNTHETIC} {samples} {size} {options.classes or _CLASSES}",
        }
        sample = sample_of_fields(options) if self.maps else image
        return Catalogue(
            directory=SYNTHETIC,
            split="train",
            files=(SYNTHETIC,),
            sizes=np.zeros(1, np.int64),
            offsets=np.array([0, samples]),
            at=np.zeros((1, 2), np.int64),
            channels="last",
            parts=tuple(map(Part.of, sample["layout"].places, sample.pop("kinds"))),
            **sample,
        )

    def _repeated(self, batch_size: int, steps: int):
        import tensorflow as tf

        draw = np.random.default_rng([self.options.seed % 2**64, self.world.rank])
        sample = self.training
        if self.maps:
            inputs = draw.standard_normal((batch_size, *sample.input_shape), np.float32)
        else:
            inputs = draw.integers(0, 256, (batch_size, *sample.input_shape), np.uint8)
        targets = draw.integers(0, sample.classes, (batch_size, *sample.target_shape), sample.target_dtype)
        # A batch goes to the GPU while the step before runs: `tf.data` holds its tensors in host memory.
        data = tf.data.Dataset.from_tensors((inputs, targets)).repeat(steps)
        if tf.config.list_logical_devices("GPU"):
            return data.apply(tf.data.experimental.prefetch_to_device("/gpu:0", 2))
        return data
