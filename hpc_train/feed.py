"""What a trainer is fed with: its two catalogues, the order of an epoch, and the batches of both splits."""

import dataclasses
import os

from hpc_train import parallel
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.layout import HELD_OUT, find_splits
from hpc_train.data.options import DataOptions
from hpc_train.data.order import BlockOrder, FullOrder, Order, from_dict
from hpc_train.data.pipeline import Input
from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reader import Reader
from hpc_train.data.survey import on_root
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import communicator
from hpc_train.parallel.world import World


class Feed:
    """The data of a training run, opened by all ranks together.

    options: of the trainer (`data.options.DataOptions` and `ReadOptions`, `test_data`, `seed`, `batch_size`).
    Raises UserError, on every rank, for data that are missing, damaged or do not fit each other.
    """

    def __init__(self, options, world: World):
        self.options, self.world = options, world
        self.comm = parallel.Ranks(world)
        self.training: Catalogue = options.catalogue("train", self.comm)
        self.held_out: Catalogue = self._open_held_out(self.training)
        self._readers = [Reader(split, how=options.reader) for split in (self.training, self.held_out)]
        device = "/gpu:0" if _gpus() else None
        self.inputs = [Input(reader, options.read_threads, options.read_ahead, device) for reader in self._readers]

    @property
    def error(self) -> Exception | None:
        """What went wrong while reading; TensorFlow shows an error of its own instead."""
        return next((source.error for source in self.inputs if source.error), None)

    def order(self, recorded: dict | None) -> Order:
        """The order of an epoch: the one that the run recorded when it began, or what the options ask for."""
        options, samples = self.options, self.training.samples
        if recorded and recorded.get("shuffle") == "blocks":
            return from_dict(recorded)
        together = on_root(self.comm, self._readers[0].samples_together) if options.shuffle == "auto" else 1
        if options.shuffle == "full" or (options.shuffle == "auto" and together == 1):
            return FullOrder(samples, options.seed)
        block = options.shuffle_block or (together if together > 1 else None)
        sizes = self.world.size, options.batch_size
        return BlockOrder.fit(samples, options.seed, *sizes, block, options.shuffle_window, self.training.sample_bytes)

    def batches(self, plan: TrainPlan, epoch: int, position: int, steps: int):
        """This rank's training batches, as `data.pipeline.Input.training` gives them."""
        return self.inputs[0].training(plan, self.world.rank, epoch, position, steps)

    def validation(self, plan: ValidationPlan):
        """This rank's held-out batches, as `data.pipeline.Input.validation` gives them."""
        return self.inputs[1].validation(plan, self.world.rank)

    def description(self) -> list[str]:
        """How the training data are read, a line a data set."""
        ahead = self.inputs[0].memory(self.options.batch_size) / 2**20
        lines = self._readers[0].describe()
        return [*lines, f"{self.inputs[0].threads} reading threads, read-ahead of at most {ahead:.0f} MiB a rank"]

    def _open_held_out(self, training: Catalogue) -> Catalogue:
        options: DataOptions = self.options
        split = on_root(self.comm, lambda: _held_out_split(options.test_data, options.data))
        held_out = options.catalogue(split, self.comm, options.test_data, training.classes)
        if (held_out.input_shape, held_out.input_dtype) != (training.input_shape, training.input_dtype):
            shapes = f"{training.input_shape} for training, {held_out.input_shape} for {split}"
            raise UserError(f"{options.data} holds samples of {shapes}; prepare both splits from one source").agreed()
        return held_out


def staged(options):
    """The options with their data on this node's own storage, as `--stage` asks; as they are without it. Collective.

    Raises UserError as `data.staging.stage` does, and when the nodes' folders have different paths.
    """
    if not options.stage:
        return options
    from hpc_train.data.stage import Stage, stage_to

    comm = communicator()
    moved = {}
    for name in ("data", "test_data"):
        if getattr(options, name):
            chosen = Stage(getattr(options, name), os.path.join(options.stage, name))
            moved[name] = stage_to(chosen, comm)
    if len(set(comm.allgather(str(moved)))) > 1:
        raise UserError(f"--stage {options.stage} is another folder on each node; name one that is the same").agreed()
    return dataclasses.replace(options, **moved)


def _held_out_split(test_data, data) -> str | None:
    there = find_splits(test_data or data)
    found = next((split for split in HELD_OUT if split in there), None)
    return found or (None if test_data else "test")


def _gpus() -> list:
    import tensorflow as tf

    return tf.config.list_logical_devices("GPU")
