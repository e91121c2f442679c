"""What a run recorded about its data, with what the command line says instead, and whether its targets are classes."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Literal

from hpc_train.data.options import DataOptions
from hpc_train.data.shards.names import parse_shard_name
from hpc_train.errors import UserError

# By these names of losses, a run predicts classes or numbers whatever its data are.
_OF_CLASSES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy")
_OF_CLASSES += ("cross_entropy",)
_OF_NUMBERS = ("mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error", "huber", "huber_loss")
_OF_NUMBERS += ("mean_squared_logarithmic_error", "log_cosh", "logcosh", "poisson", "cosine_similarity")
# The recorded options that name data sets: the command line or shards replace all of them together.
_NAMING = ("layout", "inputs", "targets", "samples", "channels", "lengths", "sequence_length", "label_values")

# Options of the command line that stand in place of the recorded ones.
_GIVEN = ("layout", "inputs", "targets", "channels", "classes", "class_names", "geometry", "ignore_label")


@dataclass(frozen=True)
class RunDataOptions:
    """How the data to predict are stored, where that is not as in training."""

    layout: Literal["auto", "shards", "cam5", "paper", "climatenet"] | None = None
    """How the samples are stored in a file; by default as in training."""
    inputs: tuple[str, ...] = ()
    """Data sets of the inputs; by default those of training."""
    targets: tuple[str, ...] = ()
    """Data sets of the targets; by default those of training. Files without them are predicted without scores."""
    stored: Literal["rows", "files"] | None = None
    """What `--samples` was in training: the first axis of a data set counts the samples, or each file is one; by
    default as in training."""
    channels: Literal["first", "last", "none"] | None = None
    """The axis of a sample that counts the channels; by default as in training."""
    ignore_label: int | None = None
    """Label maps: a stored label whose pixels are ignored; by default as in training."""
    geometry: Literal["globe", "region", "picture"] | None = None
    """Label maps: what they show, as in training; by default as the files or else the run say it."""
    classes: int | None = None
    """Number of classes, if neither the run nor the files say it; 0 if the targets are numbers and not classes."""
    class_names: tuple[str, ...] = ()
    """Names of the classes 0, 1, 2, ...; by default those of the files, or of training."""

    def of_run(self, recorded: dict, data: Path, kind: type[DataOptions] = DataOptions) -> DataOptions:
        """The options to open `data` with: those of the run, and in their place those given here.

        Args:
            recorded: the options in run.json.
            data: the data to predict.
            kind: `DataOptions` or a class derived from it.
        """
        given = {name: getattr(self, name) for name in _GIVEN}
        given = {
            name: value for name, value in given.items() if value not in (None, ()) and (name, value) != ("classes", 0)
        }
        given = {
            name: value for name, value in given.items() if name in {field.name for field in dataclass_fields(kind)}
        }
        given |= {"samples": self.stored} if self.stored else {}
        # Weights of samples are for training.
        unused = {"data", "statistics", "sample_weights"}
        known = {field.name for field in dataclass_fields(kind)} & recorded.keys() - unused
        taken = {name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()}
        taken = {name: taken[name] for name in known}
        if "layout" in given or (not self.inputs and _has_shards(data)):
            taken = {name: value for name, value in taken.items() if name not in _NAMING}
        elif self.inputs:
            taken.pop("layout", None)
        return kind(data=data, **{**taken, **given})


def of_numbers(record: dict, options: RunDataOptions, several: bool, catalogue: Callable) -> bool:
    """Whether the run predicts numbers, not classes.

    Args:
        record: the content of run.json.
        options: of the command line; its `classes` decide where they are given.
        several: whether the network has several outputs.
        catalogue: opens the data to predict, or returns None where these have no targets.

    Raises:
        UserError: neither the run nor the data tell.
    """
    recorded, facts = record.get("options", {}), record.get("facts", {})
    if "class_map" in recorded:
        return False
    loss = facts.get("loss")
    if several or options.classes is not None:
        return several or options.classes == 0
    if loss in _OF_CLASSES or loss in _OF_NUMBERS:
        return loss in _OF_NUMBERS
    classes = facts.get("classes", recorded.get("classes"))
    found = catalogue() if classes is None else None
    if classes is None and found is None:
        raise UserError("run.json does not say whether the run predicts classes; give --classes N, or --classes 0")
    return not (found.classes if found else classes)


def without_targets(options: DataOptions, path: str) -> DataOptions:
    """The options without targets, where the file at `path` has none of these data sets; else the same options."""
    from hpc_train.data.catalogue.layout import named
    from hpc_train.data.hdf5.access import open_hdf5
    from hpc_train.data.hdf5.contents import dataset_at

    if not (options.inputs and options.targets):
        return options
    with open_hdf5(path) as file:
        there = any(dataset_at(file, name)[0] is not None for name in named("--targets", options.targets)[0])
    return options if there else replace(options, targets=())


def _has_shards(data: Path) -> bool:
    return data.is_dir() and any(map(parse_shard_name, os.listdir(data)))
