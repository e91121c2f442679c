"""What the files of a split must have in common, and the labels of a catalogue."""

from hpc_train.data.catalogue.file_info import CONVERTED, PREPARE, FileInfo, differences
from hpc_train.data.catalogue.layout import SHARDS, Layout
from hpc_train.data.catalogue.part import Part, labelled
from hpc_train.data.catalogue.shard_rules import broken_sequence
from hpc_train.errors import UserError


def check_agreement(files: list[str], infos: list[FileInfo], layout: Layout, mixed: bool) -> None:
    """Refuse files that differ; `mixed` allows what `hpc-train shard` brings into one form."""
    head = infos[0].common
    shards = layout.name == SHARDS.name
    for path, info in zip(files, infos, strict=True):
        if info.common == head:
            continue
        remedy = PREPARE if shards else "leave it out"
        for what, mine, theirs in differences(layout, info.common, head):
            converts = not shards and what.endswith(CONVERTED)
            if converts and mixed:
                continue
            remedy += ", or convert the files to one form with `hpc-train shard`" * converts
            raise UserError(f"{path}: {what} is {mine}, but {theirs} in {files[0]}; {remedy}")
        if mixed and info.common._replace(kinds=head.kinds) == head:
            continue
        name = next(name for name in head._fields if getattr(info.common, name) != getattr(head, name))
        what = name.replace("_", " ")
        raise UserError(f"{path}: belongs to another generation than {files[0]} ({what} differs); {remedy}")
    if shards and (problem := broken_sequence(files, infos)):
        raise UserError(f"{problem}; {'give the folder of the shards, or ' * (len(files) == 1)}{PREPARE}")


def check_packed_labels(path: str, parts: tuple[Part, ...], layout: Layout, classes: int) -> None:
    """Refuse labels with the attributes of packed values."""
    targets = [part for part in parts if part.role == "target"]
    if labelled(layout, classes, targets) and targets[0].packed:
        raise UserError(
            f"{path}: {targets[0].datasets[0]} holds labels, but has the scale_factor or add_offset of packed values; "
            f"delete these attributes{', or leave --classes out' * (layout.name == 'custom')}"
        )


def check_labels(files: list[str], infos: list[FileInfo], classes: int, labels: tuple[int, ...]) -> None:
    """Refuse labels that do not fit the number of classes, as far as the files record them."""
    if labels and infos[0].common.classes:
        raise UserError(f"{files[0]}: its labels are the numbers of {classes} classes; leave --label-values out")
    for path, info in zip(files, infos, strict=True):
        if classes and (info.target_min < 0 or info.target_max >= classes):
            raise UserError(
                f"{path}: labels run from {info.target_min} to {info.target_max}, outside the {classes} "
                f"classes (0 to {classes - 1}); fix the labels or the number of classes and {PREPARE}"
            )
