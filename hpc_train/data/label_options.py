"""The options that say which label map of a sample counts, and which of its labels does not."""

from dataclasses import dataclass, replace

from hpc_train.data.layout import split_name
from hpc_train.data.options import DataOptions
from hpc_train.errors import UserError


@dataclass(frozen=True)
class LabelOptions(DataOptions):
    """What of the labels of maps counts."""

    ignore_label: int | None = None
    """A stored label whose pixels count for nothing; it may lie outside the classes."""
    annotation: int = 0
    """Which label map of a sample is used, where there are several: climate/labels_N of CAM5 files, index N of the
    first axis of others'."""

    def check_annotation(self) -> None:
        """UserError for a number that no label map has."""
        if self.annotation < 0:
            raise UserError(f"--annotation is {self.annotation}; label maps are counted from 0")

    def one_label_map(self, catalogue, comm=None):
        """The catalogue with the label map that --annotation names of samples that are maps with several of them.

        Collective over `comm`. Raises UserError, on every rank, when there is no such label map.
        """
        number, (first, *_) = self.annotation, catalogue.files
        shape, targets = catalogue.target_shape, catalogue.layout.targets
        if catalogue.layout.name == "cam5" and number:
            layout = replace(catalogue.layout, targets=(f"climate/labels_{number}",))
            other = catalogue.open(catalogue.directory, catalogue.split, layout, catalogue.classes or None, comm)
            return replace(other, channel_names=catalogue.channel_names)
        several = len(shape) == 3 and len(catalogue.input_shape) == 3
        if not several and not number:
            return catalogue
        if not several or number >= shape[0]:
            maps = f"label maps 0 to {shape[0] - 1}" if several else "one label map a sample"
            raise UserError(f"{first}: has {maps}, so there is no --annotation {number}").agreed()
        if len(targets) > 1:
            raise UserError(f"{first}: --targets names {len(targets)} label maps; name the one to use").agreed()
        layout = replace(catalogue.layout, targets=(f"{split_name(targets[0])[0]}[{number}]",))
        return replace(catalogue, layout=layout, target_shape=shape[1:])
