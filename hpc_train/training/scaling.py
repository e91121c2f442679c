"""How the values of a training's data are scaled: unpacked, and normalised by their statistics."""

from dataclasses import replace
from pathlib import Path

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.layout import STATISTICS_FILES
from hpc_train.data.catalogue.part import Part
from hpc_train.data.catalogue.scaling import Scaling
from hpc_train.data.options import ScaleOptions
from hpc_train.data.statistics import Statistics, load_statistics
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import on_root


def scaling_of(catalogue: Catalogue, part: Part, statistics: Statistics | None = None) -> Scaling | None:
    """How values of `part` are scaled: unpacked, and normalised where statistics are given; None if not at all.

    Args:
        catalogue: that the part is of.
        part: one of its parts.
        statistics: of the part's real values, by channel.

    Raises:
        UserError: the statistics are of another number of channels, or lack the deviation.
    """
    if not (part.packed or statistics):
        return None
    if part.lengths:
        raise UserError(
            f"the {part.label} has sequences of different lengths, whose padding must stay 0: unpack and normalise "
            "them in the network, behind a Masking layer"
        )
    if not statistics:
        return Scaling.of(catalogue, part)
    axis, channels = catalogue.channel_axis_of(part), catalogue.channels_of(part)
    if len(statistics.mean) != channels:
        raise UserError(
            f"the statistics of the {part.label} are of {len(statistics.mean)} channels, the data have {channels}; run "
            "`hpc-train stats` on these data"
        )
    shape = [channels if place == axis else 1 for place in range(len(part.shape))]
    mean, deviation = (numbers.reshape(shape) for numbers in statistics.normalisation("mean-std"))
    return Scaling.of(catalogue, part, mean, deviation)


def scalings_of(options, catalogue: Catalogue, comm) -> dict[str, Scaling]:
    """How the parts of a catalogue are scaled, by `Part.label`; collective over `comm`.

    Packed targets that are no labels become real values, and so do packed inputs with `ScaleOptions`; the networks of
    the trainers unpack their inputs themselves.

    Args:
        options: of a trainer, with `data.options.ScaleOptions` or without.
        catalogue: of the training data.
        comm: the ranks.

    Raises:
        UserError: on every rank; there are no statistics to normalise by, or they do not fit the data.
    """
    own = isinstance(options, ScaleOptions)
    chosen = options.normalise if own else ()
    if chosen and catalogue.encoding:
        raise UserError("--normalise is for arrays, not for JPEG shards; normalise images in the network").agreed()
    if "targets" in chosen and catalogue.labelled:
        raise UserError("--normalise targets: the targets are class numbers; leave it out").agreed()
    statistics = on_root(comm, lambda: _known(statistics_of(options), catalogue)) if chosen else {}
    scalings = {}
    for part in catalogue.parts:
        if (part.role == "input" and not own) or (part.role == "target" and catalogue.labelled):
            continue
        known = statistics[part.label] if f"{part.role}s" in chosen else None
        if scaling := scaling_of(catalogue, part, known):
            scalings[part.label] = scaling
    if "targets" in chosen and not catalogue.targets and "inputs" not in chosen:
        raise UserError("--normalise targets: the inputs are the targets; write --normalise inputs").agreed()
    return scalings


def scaled(catalogue: Catalogue, scalings: dict[str, Scaling]) -> Catalogue:
    """The catalogue of the samples as they are delivered: scaled values are float32 and not packed."""
    return replace(catalogue, parts=tuple(part.scaled if part.label in scalings else part for part in catalogue.parts))


def statistics_path(options) -> Path:
    """Where the statistics to normalise by are: --statistics, or beside the data."""
    folder = options.data if options.data.is_dir() else options.data.parent
    return options.statistics or folder / STATISTICS_FILES[0]


def _known(statistics: Statistics, catalogue: Catalogue) -> dict[str, Statistics]:
    """Statistics by `Part.label`, of all inputs and targets."""
    first, *others = (*catalogue.inputs, *catalogue.targets)
    known = {first.label: statistics, **statistics.others}
    for part in others:
        if part.label not in known:
            raise UserError(f"the statistics have none of the {part.label}; run `hpc-train stats` on these data")
    return known


def statistics_of(options) -> Statistics:
    """The statistics to normalise by; UserError where there are none.

    Args:
        options: with --normalise.
    """
    path = statistics_path(options)
    if not path.is_file():
        raise UserError(
            f"{path}: does not exist; --normalise needs the statistics of the data: run `hpc-train stats --data "
            f"{options.data}`, or name a file with --statistics"
        )
    return load_statistics(path)
