"""Train a climate segmentation network: horovodrun -np 4 python -m hpc_train.climate --data cam5 --model tiramisu."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

from hpc_train import command_line, training
from hpc_train.data.fields.options import FieldOptions
from hpc_train.errors import UserError
from hpc_train.losses.options import LossOptions, make, weights_of_classes


@dataclass(frozen=True)
class Options(LossOptions, FieldOptions, training.Options):
    """Find tropical cyclones and atmospheric rivers in maps of the weather, one process a GPU.

    The networks and, unless options change it, the recipe of Kurth et al., "Exascale Deep Learning for Climate
    Analytics" (2018), section V-B.
    """

    model: Literal["tiramisu", "deeplab", "tiramisu-small", "deeplab-small"] = "tiramisu"
    """Network: Tiramisu or DeepLabv3+ as in the paper; small: the same structure, for trials on a CPU."""
    epochs: int = 30
    """Passes over the data; N ranks take 1/N of the steps that one rank takes."""
    batch_size: int = 1
    """Samples that a rank computes at once; the global batch is this times --accumulate times the number of ranks."""
    optimizer: Literal["sgd", "adam", "lamb"] = "adam"
    """sgd: SGD with momentum; adam: Adam (Kingma and Ba 2015); lamb: LAMB, Adam with layer-wise rates (You et al.
    2020)."""
    lr: float = 1e-4
    """Learning rate at the base batch."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "sqrt"
    """How the learning rate grows with global batch / base batch; more than sqrt seldom works with Adam."""
    base_batch: int = 2
    """Global batch for which --lr was chosen."""


def run(options: Options) -> None:
    """Train by the options; every rank calls it."""
    training.train(options, task(options))


def task(options: Options) -> training.Task:
    """The network that the options choose, its loss and its scores.

    Raises:
        UserError: for impossible values and combinations of options.
    """
    options.check_loss()
    options.check_fields()
    for option in ("fields", "normalise"):
        if options.init and getattr(options, option) != getattr(Options, option):
            raise UserError(f"--{option} is for a new network, and --init brings its own: leave one of the two out")
    if options.needs_counts or not options.init:
        from hpc_train.training.early_checks import check_statistics

        check_statistics(options, partial(_statistics, options), options.needs_counts)
    return training.Task(
        options.model,
        partial(build, options),
        partial(_loss, options),
        partial(_metrics, options),
        monitor="mean_iou",
        shown=("mean_iou", "sample_iou", "accuracy"),
        notes=partial(_notes, options),
        facts=partial(_facts, options),
        fits=partial(_check_sides, options),
        benchmark="deepcam",
    )


def build(options: Options, catalogue):
    """An uncompiled Keras model from fields as stored to float32 logits of each pixel.

    Raises:
        UserError: statistics or channels are missing, or the data are not maps.
    """
    from hpc_train.models.inputs import network_input

    any_size = options.random_crop is not None
    inputs, x = network_input(catalogue, _statistics(options), options.normalise, options.fields, any_size)
    return _family(options.model).build(options.model, inputs, x, catalogue.classes)


def _family(name: str):
    """The module of a network's family; None for other names, which a network of --init may have."""
    from hpc_train.models import deeplab, tiramisu

    return next((family for family in (deeplab, tiramisu) if name in family.FAMILY), None)


def _check_sides(options: Options, model, catalogue) -> None:
    """Check that the network takes the parts of maps in training, and the whole maps in validation."""
    takes_any, family = None in model.input_shape[1:], _family(model.name)
    if options.random_crop and not takes_any:
        raise UserError(
            f"--random-crop: the network of --init only takes maps of {model.input_shape[1:]}; leave --random-crop "
            "out, or start from a network that was trained with it"
        )
    if not (takes_any and family):
        return
    multiple = family.multiple(model.name)
    for what, size in (("parts of maps", options.random_crop), ("whole maps", catalogue.target_shape)):
        if size and any(side % multiple for side in size):
            raise UserError(
                f"{what} are {size[0]} x {size[1]}, but {model.name}, made for --random-crop, needs sides that are "
                f"multiples of {multiple}; a new network without --random-crop pads whole maps itself"
            )


def _facts(options: Options, catalogue) -> dict:
    statistics = None if options.init else _statistics(options)
    return {
        "fields": list(options.fields),
        "class_map": list(options.class_map),
        "ignore_label": options.ignore_label,
        "annotation": options.annotation,
        "normalise": options.normalise,
        "statistics": statistics and statistics.digest,
    }


def _loss(options: Options, catalogue):

    return make(options, catalogue.classes, _counts(options, catalogue), options.label_smoothing, options.ignored)


def _metrics(options: Options, catalogue) -> list:
    from hpc_train.metrics.label_maps import SampleIoU, SegmentationScores

    classes, ignored = catalogue.classes, options.ignored
    return [SegmentationScores(classes, catalogue.class_names, ignored), SampleIoU(classes, ignored)]


def _notes(options: Options, catalogue) -> list[str]:
    from hpc_train.metrics.label_maps import keys
    from hpc_train.models.padding import notice

    statistics = None if options.init else _statistics(options)
    notes = [*statistics.notes] if statistics else []
    weights = weights_of_classes(options, catalogue.classes, _counts(options, catalogue))
    if weights is not None:
        names = keys(catalogue.classes, catalogue.class_names)
        notes.append(
            "weights: " + ", ".join(f"{name} {weight:.4g}" for name, weight in zip(names, weights, strict=True))
        )
    if not (options.init or options.random_crop):
        height, width = catalogue.target_shape
        padded = notice(height, width, _family(options.model).multiple(options.model))
        notes += [f"maps of {padded} inside the network"] if padded else []
    return notes


def _counts(options: Options, catalogue):
    """The number of pixels of each class in the training data, where the loss needs it."""
    return options.class_counts(_statistics(options), catalogue.classes) if options.needs_counts else None


@lru_cache
def _statistics(options: Options):
    """Statistics of the data; None where there are none and neither the network nor the loss needs them."""
    return options.load_statistics()


def network(name: str, shape: tuple[int, int, int], classes: int):
    """The network `name` for samples that need no normalising: from float32 samples of `shape` to logits.

    Raises:
        UserError: there is no such network, or it does not take this shape.
    """
    from keras import Input

    from hpc_train.models import deeplab, presets, tiramisu

    presets.choose(name, {**tiramisu.FAMILY, **deeplab.FAMILY})
    inputs = Input(shape)
    return _family(name).build(name, inputs, inputs, classes)


if __name__ == "__main__":
    command_line.main(Options, run, "python -m hpc_train.climate")
