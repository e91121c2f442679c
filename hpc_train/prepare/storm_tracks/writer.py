"""Writes one split of labelled maps to shards, and the list of its storms."""

import csv
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpc_train.console import ProgressLine, say
from hpc_train.data.shards.compression import Storage
from hpc_train.data.shards.names import default_shards, shard_edges
from hpc_train.data.shards.streamed import StreamedSplit
from hpc_train.data.shards.writer import ShardWriter
from hpc_train.files.whole import atomic_path
from hpc_train.names import cell
from hpc_train.prepare.storm_tracks.fields import FieldFile
from hpc_train.prepare.storm_tracks.labels import FileGrid
from hpc_train.prepare.storm_tracks.tracks import Storm

CLASS_NAMES = ("background", "tc")
_NAMED = 12


class Map(NamedTuple):
    """One sample: its file, its time and the number of that time in the file, and the storms on its grid."""

    path: str
    index: int
    time: np.datetime64
    storms: tuple[Storm, ...]


class SplitWriter:
    """A split whose shards are being written; `size`: bytes of its samples.

    Args:
        options: `command.StormTracks`.
        split: `splits.Split`.
        maps: its samples, in order.
        grid: of all maps.
    """

    def __init__(self, options, split, maps: list[Map], grid: FileGrid):
        self.options, self.name, self.maps, self.grid = options, split.name, maps, grid
        shape = len(grid.latitudes), len(grid.longitudes)
        self.shape = *shape, len(options.variables)
        sample = int(np.prod(shape)) * (4 * len(options.variables) + 1)
        self.size, self.labelled = len(maps) * sample, 0
        shards = options.shards or default_shards(len(maps), sample)
        storage = Storage(options.compression)
        files = sorted({Path(one.path).name for one in maps})
        attributes = {
            "classes": len(CLASS_NAMES),
            "class_names": list(CLASS_NAMES),
            "channels": "last",
            "channel_names": list(options.variables),
            "source": f"{files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''}, cyclones of "
            f"{options.tracks.name} within {options.radius:.4g} degrees, {options.min_wind:g} kt or more",
        }
        coordinates = {"latitude": grid.latitudes, "longitude": grid.longitudes}

        def open_shard(path, attributes):
            first, stop = edges[attributes["shard"]], edges[attributes["shard"] + 1]
            time = np.array([one.time for one in maps[first:stop]])
            kinds = {"inputs": (self.shape, np.float32), "targets": (shape, np.uint8)}
            return ShardWriter(path, stop - first, kinds, attributes, storage, coordinates | {"time": time})

        self.stream = StreamedSplit(options.output, split.name, len(maps), shards, open_shard, attributes)
        edges = shard_edges(len(maps), shards)

    def write(self) -> None:
        """Write all maps, one after another."""
        progress = ProgressLine(self.name, len(self.maps), unit="maps")
        path, file = None, None
        with ExitStack() as stack:
            for one in self.maps:
                if one.path != path:
                    stack.close()
                    path, file = one.path, stack.enter_context(FieldFile(one.path, self.options.variables))
                inputs = file.read(one.index)
                labels = self.grid.label(one.storms, self.options.radius)
                self.labelled += int(labels.sum())
                self.stream.write([inputs], labels[None])
                progress.add(1, inputs.nbytes + labels.nbytes)
        progress.close()

    def publish(self) -> None:
        """Give the shards their names, write the list of storms, and print a summary.

        Raises:
            UserError: a file cannot be written.
        """
        paths = self.stream.publish()
        where = self.options.output / f"storms-{self.name}.csv"
        self._write_list(where)
        share = self.labelled / (len(self.maps) * self.shape[0] * self.shape[1])
        fixes = sum(len(one.storms) for one in self.maps)
        say(
            f"{self.name}: {len(self.maps)} maps of {self.shape} float32, {sum(bool(one.storms) for one in self.maps)} "
            f"with a cyclone, {share:.3%} of pixels tc, {len(paths)} shards in {self.options.output}"
        )
        strongest = {}
        for storm in (storm for one in self.maps for storm in one.storms):
            before = strongest.get(storm.track, storm)
            strongest[storm.track] = before if before.wind > storm.wind else storm
        by_wind = sorted(strongest.values(), key=lambda storm: np.nan_to_num(storm.wind, nan=-1), reverse=True)
        named = [storm.name + ("" if np.isnan(storm.wind) else f" {storm.wind:.0f} kt") for storm in by_wind[:_NAMED]]
        more = f" and {len(strongest) - _NAMED} more" if len(strongest) > _NAMED else ""
        say(f"{self.name}: {fixes} positions of {len(strongest)} cyclones: {', '.join(named)}{more}; see {where}")

    def _write_list(self, where: Path) -> None:
        remedy = "prepare again with another --output"
        with atomic_path(where, remedy) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sample", "time", "file", "track", "name", "latitude", "longitude", "wind_kt"])
            for sample, one in enumerate(self.maps):
                about = [sample, str(one.time), cell(Path(one.path).name)]
                for storm in one.storms or [None]:
                    place = [""] * 5
                    if storm:
                        wind = "" if np.isnan(storm.wind) else f"{storm.wind:.0f}"
                        place = [
                            cell(storm.track),
                            cell(storm.name),
                            f"{storm.latitude:.2f}",
                            f"{storm.longitude:.2f}",
                            wind,
                        ]
                    writer.writerow(about + place)
