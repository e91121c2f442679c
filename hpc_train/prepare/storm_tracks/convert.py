"""Turns fields, tracks and splits into shards of label maps."""

import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import numpy as np

from hpc_train.console import say
from hpc_train.data.shards.names import check_space
from hpc_train.errors import UserError
from hpc_train.prepare.storm_tracks.fields import FieldFile, find_fields
from hpc_train.prepare.storm_tracks.labels import FileGrid
from hpc_train.prepare.storm_tracks.splits import parse_splits
from hpc_train.prepare.storm_tracks.tracks import Selection, Tracks, read_tracks
from hpc_train.prepare.storm_tracks.writer import Map, SplitWriter


def convert(options) -> None:
    """Write the shards of every split, then give all of them their names.

    Args:
        options: `command.StormTracks`.

    Raises:
        UserError: a file is wrong, a split has no maps or storms, or the shards cannot be written.
    """
    splits = parse_splits(options.splits)
    statuses = () if "any" in options.statuses else options.statuses
    selection = Selection(options.min_wind, statuses, options.basins, options.gap_hours * 3600)
    grid, files = _survey(options)
    maps = _divide(options, splits, selection, grid, files)
    with ExitStack() as stack:
        works = [SplitWriter(options, split, maps[split.name], grid) for split in splits]
        try:
            if options.compression == "none":
                check_space(_existing(options.output), sum(work.size for work in works))
            for work in works:
                stack.enter_context(work.stream)
                work.write()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"nothing in {options.output} was changed; give the same command again") from None
        for work in works:
            work.stream.finish()
        for work in works:
            work.publish()


def _survey(options) -> tuple[FileGrid, dict[str, np.ndarray]]:
    """The grid of all files, and the times of each, datetime64[s] (n,)."""
    grid, files = None, {}
    for path in find_fields(options.fields):
        with FieldFile(path, options.variables) as file:
            times, latitudes, longitudes = file.times, file.latitudes, file.longitudes
        if grid is None:
            grid = FileGrid(path, latitudes, longitudes)
            grid.check_radius(options.radius)
        grid.check(path, latitudes, longitudes)
        files[path] = times
    return grid, files


def _divide(options, splits, selection: Selection, grid: FileGrid, files) -> dict[str, list[Map]]:
    """The maps of each split; UserError for a split without maps or storms."""
    all_times = np.concatenate(list(files.values()))
    around = np.timedelta64(int(selection.gap) + 1, "s")
    window = (all_times.min() - around).astype(datetime), (all_times.max() + around).astype(datetime)
    tracks = read_tracks(options.tracks, selection, window)
    maps, unused = {split.name: [] for split in splits}, 0
    for path, times in files.items():
        storms = tracks.storms(times, selection)
        takes = [split.takes(Path(path).name, times) for split in splits]
        for index, time in enumerate(times):
            names = [split.name for split, taken in zip(splits, takes, strict=True) if taken[index]]
            if len(names) > 1:
                raise UserError(
                    f"{path}: the map of {time} is in {' and '.join(names)}; give --splits that do not overlap"
                )
            here = tuple(storm for storm in storms[index] if grid.holds(storm, options.radius))
            for name in names:
                maps[name].append(Map(path, index, time, here))
            unused += not names
    for split in splits:
        _check_split(options, split.name, maps[split.name], all_times, tracks)
    if unused:
        say(f"{unused} of {len(all_times)} maps are in no split", sys.stderr)
    return maps


def _check_split(options, split: str, maps: list[Map], times, tracks: Tracks) -> None:
    if not maps:
        raise UserError(
            f"--splits {split}: no map is in it, and the maps are of {times.min()} to {times.max()}; give dates in "
            "that range or patterns of file names"
        )
    if any(one.storms for one in maps):
        return
    first, last = (pick(one.time for one in maps) for pick in (min, max))
    if tracks.last < first or tracks.first > last:
        raise UserError(
            f"{tracks.path}: has fixes of {tracks.first} to {tracks.last}, but the maps of {split} are of {first} to "
            f"{last}; give the tracks of that time"
        )
    raise UserError(
        f"{tracks.path}: no cyclone of {options.min_wind:g} kt or more with status {' '.join(options.statuses)} in the "
        f"{len(maps)} maps of {split}, {first} to {last}; give other --min-wind, --statuses, --basins or --splits"
    )


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())
