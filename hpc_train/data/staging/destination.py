"""The folder on a node that staging fills: it must be writable, and holds one data set and no other."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpc_train.data.staging.manifest import Manifest, Source
from hpc_train.data.staging.nodes import Nodes
from hpc_train.errors import UserError


def check_place(root: str, directory: Path) -> None:
    """UserError where the destination contains its own source."""
    if Path(os.path.realpath(root)).is_relative_to(os.path.realpath(directory)):
        raise UserError(f"the destination {directory} holds the source {root}; stage to another folder")


def prepare(manifest: Manifest, nodes: Nodes) -> None:
    """Make the folder, for this user alone; UserError where it is not writable, or in another user's hands."""
    try:
        manifest.prepare()
    except UserError as error:
        raise UserError(f"node {nodes.name}: {error}") from error
    except OSError as error:
        raise UserError(
            f"cannot write to {manifest.directory} on node {nodes.name}: {error.strerror}; "
            "give a folder of the node's own storage that you may write to"
        ) from error


def names_to_keep(sources: Sequence[Source], mine: np.ndarray, manifest: Manifest) -> set[str]:
    """Names that the folder may hold: this node's files, and copies of other files that match their sources."""
    records = {} if mine.all() else manifest.records()
    return {
        source.name
        for source, held in zip(sources, mine, strict=True)
        if held or manifest.whole(source, records.get(source.name))
    }


def clear(kept: set[str], root: str, manifest: Manifest, nodes: Nodes) -> int:
    """Remove copies that an earlier job made and that are not in `kept`, and return their number.

    Raises:
        UserError: the folder holds data files that no job staged (nothing is removed), or a copy cannot be removed.
    """
    copies, others = manifest.strangers(kept)
    if others:
        raise UserError(
            f"{manifest.directory} on node {nodes.name} also holds {others[0]}, which is not from {root}; "
            "empty this folder or stage to another one"
        )
    try:
        manifest.remove(copies)
    except OSError as error:
        raise UserError(
            f"cannot remove {error.filename} on node {nodes.name}, which is no longer in the data: {error.strerror}; "
            "remove it yourself, or stage to another folder"
        ) from error
    return len(copies)


def check_unmixed(kept: set[str], manifest: Manifest, nodes: Nodes) -> None:
    """UserError where other data were put into the folder after `clear`."""
    copies, others = manifest.strangers(kept)
    if copies or others:
        raise UserError(
            f"{manifest.directory} on node {nodes.name}: another program put {(copies + others)[0]} there while this "
            "job staged; give each job its own folder"
        )
