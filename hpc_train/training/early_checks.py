"""What is cheap to find before anything is copied, surveyed or trained: absent statistics, and labels of no class."""

from dataclasses import replace

import numpy as np

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.layout import SHARDS
from hpc_train.data.options import is_synthetic
from hpc_train.data.reading.reader import Reader
from hpc_train.parallel.mpi import on_root
from hpc_train.units import MIB

# Targets of at most so many bytes in so few files are read at the start.
_MOST_BYTES, _MOST_FILES = 16 * MIB, 16
_TOGETHER = 4096


def check_targets(catalogue: Catalogue, comm, ignore: int | None = None) -> None:
    """Read all targets, where they are few, and check them as training does; collective.

    Args:
        catalogue: of samples in files; the labels of shards were checked when they were written.
        comm: the ranks.
        ignore: a label that is allowed besides the classes.

    Raises:
        UserError: on every rank, naming file and row of a label outside the classes, or of a value that is not finite.
    """
    targets, layout = catalogue.targets, catalogue.layout
    size = catalogue.samples * sum(part.bytes for part in targets)
    if layout.name == SHARDS.name or size > _MOST_BYTES or len(catalogue.files) > _MOST_FILES:
        return
    if not targets or any(part.lengths for part in catalogue.parts):
        return
    alone = replace(layout, inputs=(), input_names=(), weights="", lengths=())
    first = sum(len(part.datasets) for part in catalogue.inputs)
    columns = catalogue.at[:, first : first + len(alone.datasets)]

    def read() -> None:
        reader = Reader(replace(catalogue, layout=alone, parts=targets, at=columns), ignore=ignore)
        for start in range(0, catalogue.samples, _TOGETHER):
            reader.read(np.arange(start, min(start + _TOGETHER, catalogue.samples)))
        reader.close()

    on_root(comm, read)


def check_statistics(options, load, counted: bool = False) -> None:
    """Load the statistics that training needs, before the files of the data are looked into.

    Args:
        options: of the trainer.
        load: reads them; returns None where there are none, and none are needed.
        counted: the pixels of each class are needed as well.

    Raises:
        UserError: they are missing, cannot be read, or lack the pixels of classes.
    """
    if is_synthetic(options) or not options.data.exists():
        return
    statistics = load()
    if counted:
        from hpc_train.losses.options import weights_of_classes

        counts = None if statistics is None else statistics.class_counts
        weights_of_classes(options, 0 if counts is None else len(counts), counts)
