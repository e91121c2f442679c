"""The data of a trainer: its two catalogues, the order of an epoch, and the batches of both splits."""

import dataclasses
import os
from pathlib import Path

from hpc_train import parallel
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.layout import HELD_OUT, find_splits
from hpc_train.data.fields.options import FieldOptions
from hpc_train.data.options import ScaleOptions, is_synthetic
from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.plan.order import BLOCKS_IN_WINDOW, BlockOrder, FullOrder, Order, from_dict
from hpc_train.data.reading.encoded_reader import open_reader
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import communicator, on_root
from hpc_train.parallel.world import World
from hpc_train.training.early_checks import check_targets
from hpc_train.training.scaling import scaled, scalings_of, statistics_path
from hpc_train.training.synthetic import Synthetic
from hpc_train.units import MIB

# Most bytes of a shuffle window where --shuffle-window is not set: a rank holds two windows at a time.
_WINDOW_BYTES = 2**29


def open_feed(options, world: World) -> "Feed | Synthetic":
    """Open the data that the options name: `Synthetic` for --data synthetic, else a `Feed` of files. Collective.

    Raises:
        UserError: on every rank, as `Feed` and `Synthetic` do.
    """
    return (Synthetic if is_synthetic(options) else Feed)(options, world)


class Feed:
    """The data of a training run in files, opened by all ranks together.

    Its `training` and `held_out` are catalogues of samples as delivered: encoded images have the size --image-size,
    fields have the classes of --class-map, packed or normalised values are scaled.

    Args:
        options: of the trainer (`data.options.DataOptions` and `ReadOptions`, `test_data`, `seed`, `batch_size`), with
            `data.fields.options.FieldOptions` or without.
        world: the ranks.

    Raises:
        UserError: on every rank; data are missing or damaged, or the splits do not fit each other.
    """

    def __init__(self, options, world: World):
        self.options, self.world = options, world
        self.comm = parallel.Ranks(world)
        training = options.catalogue("train", self.comm)
        _check_weights(training)
        options.check_images(training.encoding)
        stored = [split.resized(options.image_size) for split in (training, self._open_held_out(training))]
        fields = isinstance(options, FieldOptions)
        if fields:
            training.one_pair("a trainer of label maps")
        if fields and tuple(options.field_size) != FieldOptions.field_size:
            raise UserError("--field-size is for --data synthetic; give both or leave it out").agreed()
        more = {"ignore": options.ignored_label(training)} if fields else {}
        self._readers = [open_reader(split, how=options.reader, **more) for split in stored]
        for split in stored:
            check_targets(split, self.comm, **more)
        self._transform = options.transform(training, self.comm) if fields else None
        self.scalings = scalings_of(options, training, self.comm)
        self.inputs = [self._input(reader) for reader in self._readers]
        delivered = [options.classes_of(split).delivered(split) for split in stored] if fields else stored
        self.training: Catalogue
        self.held_out: Catalogue
        self.training, self.held_out = (scaled(split, self.scalings) for split in delivered)

    def give_inputs_alone(self) -> None:
        """Without targets, give `fit` the inputs alone, not as targets too: a training step of one's own takes them."""
        self.inputs = [self._input(reader, alone=True) for reader in self._readers]

    @property
    def facts(self) -> dict:
        """What a resumed run must share and `hpc-train predict` needs: how values are scaled, what maps show."""
        kinds = {label: scaling.as_dict() for label, scaling in self.scalings.items()}
        facts: dict = {"scaling": kinds} if kinds else {}
        if isinstance(self.options, FieldOptions):
            facts |= self.options.recorded_geometry(self.training)
            facts["class_names"] = list(self.training.class_names)
        return facts

    @property
    def error(self) -> Exception | None:
        """The error that stopped reading through `tf.data`, which raises an error of its own instead."""
        return next((source.error for source in self.inputs if source.error), None)

    def order(self, recorded: dict | None) -> Order:
        """The order of an epoch.

        Args:
            recorded: the order that the run recorded when it began, as `Order.as_dict` gives it; None for a new run.

        Returns:
            The recorded order where samples and seed are the same, else the one that the options ask for.

        Raises:
            UserError: options for blocks without --shuffle blocks.
        """
        options, samples, sample_bytes = self.options, self.training.samples, self._readers[0].sample_bytes
        full = FullOrder(samples, options.seed)
        if recorded and {**full.as_dict(), **recorded} == {**recorded, "samples": samples, "seed": options.seed}:
            return from_dict(recorded)
        sized = options.shuffle_block or options.shuffle_window
        if options.shuffle == "full" and sized:
            raise UserError("--shuffle-block and --shuffle-window are for --shuffle blocks; leave them out")
        together = on_root(self.comm, self._readers[0].samples_together)
        if options.shuffle == "full" or (options.shuffle == "auto" and together == 1 and not sized):
            return full
        sizes = samples, options.seed, self.world.size, options.batch_size * options.accumulate
        block = options.shuffle_block or BlockOrder.fit(*sizes, sample_bytes=sample_bytes).block
        # Whole chunks, so that no chunk is decoded twice.
        block = -(-block // together) * together
        window = options.shuffle_window or max(block, min(BLOCKS_IN_WINDOW * block, _WINDOW_BYTES // sample_bytes))
        return BlockOrder.fit(*sizes, block, window)

    def batches(self, plan: TrainPlan, epoch: int, position: int, steps: int):
        """This rank's training batches, as from `data.tensors.pipeline.Input.training`."""
        return self.inputs[0].training(plan, self.world.rank, epoch, position, steps)

    def handed(self, plan: TrainPlan, epoch: int, position: int, steps: int):
        """The same without `tf.data`, as from `data.tensors.pipeline.Input.handed`; None where it has none."""
        return self.inputs[0].handed(plan, self.world.rank, epoch, position, steps)

    def validation(self, plan: ValidationPlan):
        """This rank's held-out batches, as from `data.tensors.pipeline.Input.validation`."""
        return self.inputs[1].validation(plan, self.world.rank)

    def description(self, plan: TrainPlan) -> list[str]:
        """How the training data are read, in lines to print."""
        held = self.inputs[0].memory(plan) / MIB
        threads, read = self.inputs[0].reading(plan.batch_size).threads, self._readers[0].describe()
        if self.training.encoding:
            size, crop = self.options.image_size, self.options.crop
            part = "a random part, mirrored half of the time" if crop == "inception" else "the centre"
            read.append(f"decoded to {size} x {size} by {threads} threads: of each image {part}")
            return [*read, f"{threads} reading threads, about {held:.0f} MiB of files and images in memory"]
        if self._transform:
            read += self._transform.describe()
        return [*read, f"{threads} reading threads, at most {held:.0f} MiB of samples in memory"]

    def _input(self, reader, alone: bool = False):
        from hpc_train.data.tensors.delivery import Delivery
        from hpc_train.data.tensors.jpeg_input import JpegInput
        from hpc_train.data.tensors.pipeline import Input

        options, device = self.options, "/gpu:0" if _gpus() else None
        how = reader, options.read_threads, options.read_ahead, device
        if reader.encoding:
            return JpegInput(*how, options.crop)
        return Input(*how, self._transform, Delivery.of(reader.catalogue, self.scalings, alone))

    def _open_held_out(self, training: Catalogue) -> Catalogue:
        options, names = self.options, self.options.held_out_names()
        beside = options.data if names and not options.test_data else options.test_data
        split = on_root(self.comm, lambda: _held_out_split(beside, options.data))
        named = dataclasses.replace(options, **names) if names else options
        held_out = named.catalogue(split, self.comm, beside, training.classes)
        wanted = training.sequence_lengths
        if any(length > most for length, most in zip(held_out.sequence_lengths, wanted, strict=False)):
            raise UserError(
                f"{held_out.files[0]}: holds sequences of {max(held_out.sequence_lengths)} steps, the training data of "
                f"{max(wanted)}; give --sequence-length, to which all are padded or cut"
            ).agreed()
        held_out = held_out.padded(wanted) if len(held_out.sequence_lengths) == len(wanted) else held_out
        first, second = map(_form, (training, held_out))
        one = "`hpc-train prepare image-folder`" if training.encoding or held_out.encoding else "`hpc-train shard`"
        if first != second:
            raise UserError(
                f"{held_out.files[0]}: holds samples {second}, but training samples are {first}; bring both into one "
                f"form: put them in one folder, as train and test, and run {one} on it"
            ).agreed()
        channels = training.channel_names, held_out.channel_names
        if all(channels) and channels[0] != channels[1] and "inputs" not in names:
            raise UserError(
                f"{held_out.files[0]}: has the channels {', '.join(channels[1])}, but training samples have "
                f"{', '.join(channels[0])}; bring them into one order"
            ).agreed()
        return held_out


def staged(options):
    """Copy the data to this node's own storage where --stage asks for it. Collective.

    Returns:
        The options with the paths of the copies; the same options without --stage.

    Raises:
        UserError: as `data.staging.stage`, and when the nodes' folders have different paths.
    """
    if not options.stage:
        return options
    if is_synthetic(options):
        raise UserError("--stage copies files, and --data synthetic has none; leave one of the two out").agreed()
    from hpc_train.data.staging.command import Stage, stage_to

    comm = communicator()
    moved = {}
    if isinstance(options, ScaleOptions) and options.normalise:
        # The copy holds samples alone.
        moved["statistics"] = statistics_path(options)
    for name in ("data", "test_data"):
        if getattr(options, name):
            moved[name] = stage_to(Stage(getattr(options, name), os.path.join(options.stage, name)), comm)
    if len(set(comm.allgather(str(moved)))) > 1:
        raise UserError(
            f"--stage {options.stage} is a different path on each node; name one that is the same on all"
        ).agreed()
    return dataclasses.replace(options, **moved)


def _check_weights(catalogue: Catalogue) -> None:
    """Refuse weights that Keras would multiply with the wrong axis of a loss; collective."""
    short = [part for part in catalogue.weights if not part.shape]
    many = [part for part in catalogue.targets or catalogue.inputs if len(part.shape) > 1]
    if short and many:
        raise UserError(
            f"{catalogue.files[0]}: the sample weights {short[0].datasets[0]} are one number a sample, which Keras "
            f"lines up with the last axis of a loss, but the {many[0].label} has the axes {many[0].shape}; store them "
            "with an axis of length 1 for each axis that the loss keeps: (n, 1, 1) for label maps (height, width)"
        ).agreed()


def _form(catalogue: Catalogue) -> str:
    """Names, shapes, types and packing of a sample, to compare splits; of labels, only how many axes they have."""
    if catalogue.encoding:
        return catalogue.encoding.upper()
    parts = []
    for part in catalogue.parts:
        if part.role == "target" and catalogue.labelled:
            continue
        name = "" if part.label == "input" else f"{part.label} "
        packed = f", packed by {part.packing}" if part.packed else ""
        parts.append(f"{name}{part.shape} {part.dtype.newbyteorder('=')}{packed}")
    return "; ".join(parts)


def _held_out_split(test_data, data) -> str | None:
    if test_data is None and not Path(data).is_dir():
        raise UserError(
            f"{data}: is not divided into splits; name the held-out data with --test-data, or other data sets of the "
            "same file with --test-inputs and --test-targets"
        )
    there = find_splits(test_data or data)
    found = next((split for split in HELD_OUT if split in there), None)
    return found or (None if test_data else "test")


def _gpus() -> list:
    import tensorflow as tf

    return tf.config.list_logical_devices("GPU")
