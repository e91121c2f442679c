"""Best tracks of tropical cyclones, and the positions of their storms at given times."""

import csv
import io
import lzma
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.files.limits import lines, most_text, open_packed
from hpc_train.prepare.storm_tracks.great_circle import along_great_circle

# The columns of each value in IBTrACS (Knapp et al. 2010) and in extracts of it; the first that is not blank counts.
_COLUMNS = {
    "track": ("sid", "track_id"),
    "time": ("iso_time", "time"),
    "latitude": ("lat", "latitude"),
    "longitude": ("lon", "longitude"),
    "wind": ("usa_wind", "wmo_wind", "wind"),
    "status": ("usa_status", "status", "nature"),
    "basin": ("basin",),
    "name": ("name",),
    "kind": ("track_type",),
}
_NEEDED = ("track", "time", "latitude", "longitude")
# More than IBTrACS holds since 1842. Of a packed file, few bytes may be many rows.
_ROWS = 1_000_000
_UNKNOWN = ("", "NR")
_UNNAMED = ("UNNAMED", "NOT_NAMED")


@dataclass(frozen=True)
class Selection:
    """The fixes of a track that count, by the options of the command.

    Args:
        min_wind: kt; above 0, fixes without a wind do not count.
        statuses, basins: empty for all.
        gap: longest time between two fixes, seconds.
    """

    min_wind: float
    statuses: tuple[str, ...]
    basins: tuple[str, ...]
    gap: float


@dataclass(frozen=True)
class Storm:
    """A cyclone at one time: degrees north, degrees east as in the tracks, sustained wind in kt (NaN: not known)."""

    track: str
    name: str
    latitude: float
    longitude: float
    wind: float


@dataclass(frozen=True, eq=False)
class Track:
    """The fixes of one cyclone, in order of time.

    Args:
        track: its identifier in the file.
        name: of the storm, or its identifier.
        times: datetime64[s] (n,).
        latitudes, longitudes: float64 (n,), degrees.
        winds: float64 (n,), kt.
        counts: bool (n,), whether a fix has a selected status and basin.
    """

    track: str
    name: str
    times: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    winds: np.ndarray
    counts: np.ndarray

    def at(self, times: np.ndarray, selection: Selection) -> dict[int, Storm]:
        """The storm at those of the times, datetime64[s] (m,), at which it is on its track.

        Between two fixes its position is on the great circle through them, and its wind changes linearly. It is there
        only if both fixes count and are at most `selection.gap` seconds apart.

        Returns:
            The storm by its place in `times`.
        """
        inside = np.flatnonzero((times >= self.times[0]) & (times <= self.times[-1]))
        after = np.searchsorted(self.times, times[inside])
        before = np.where(self.times[after] == times[inside], after, after - 1)
        span = (self.times[after] - self.times[before]) / np.timedelta64(1, "s")
        passed = (times[inside] - self.times[before]) / np.timedelta64(1, "s")
        share = np.divide(passed, span, out=np.zeros(len(inside)), where=span > 0)
        # In this form the wind between 34 and 34 is exactly 34.
        winds = self.winds[before] + share * (self.winds[after] - self.winds[before])
        taken = self.counts[before] & self.counts[after] & (span <= selection.gap)
        if selection.min_wind > 0:
            taken &= winds >= selection.min_wind
        ends = [(self.latitudes[fixes], self.longitudes[fixes]) for fixes in (before, after)]
        latitudes, longitudes = along_great_circle(*ends, share)
        return {
            int(inside[k]): Storm(self.track, self.name, float(latitudes[k]), float(longitudes[k]), float(winds[k]))
            for k in np.flatnonzero(taken)
        }


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks of a file in a window of time.

    Args:
        path: of the file.
        tracks: those in the window.
        first, last: datetime64[s] of the first and last fix of the whole file.
    """

    path: Path
    tracks: Sequence[Track]
    first: np.datetime64
    last: np.datetime64

    def storms(self, times: np.ndarray, selection: Selection) -> list[list[Storm]]:
        """The storms at each of the times, datetime64[s] (m,)."""
        found = [[] for _ in times]
        for track in self.tracks:
            for place, storm in track.at(times, selection).items():
                found[place].append(storm)
        return found


def read_tracks(path: Path, selection: Selection, window=(datetime.min, datetime.max)) -> Tracks:
    """Read the tracks of a csv file, gzipped or not: IBTrACS's own, or an extract with columns of such names.

    These rows are left out: those without a position, those without a wind if `selection` has a least wind, and
    IBTrACS's spur tracks, which repeat other tracks.

    Args:
        window: two datetimes, UTC without a zone; rows outside are skipped unchecked.

    Raises:
        UserError: the file cannot be read, or a row is wrong; the message names file and line.
    """
    rows, first, last = {}, datetime.max, datetime.min
    try:
        most = max(_ROWS, os.path.getsize(path) // 10)
        with open_packed(path, most_text) as file:
            reader = csv.reader(lines(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), path))
            columns = _find_columns(path, next(reader, []), selection)
            for line, row in enumerate(reader, 2):
                # The second line of IBTrACS's files has the units instead of values, and no time.
                if not row or (line == 2 and not _first(row, columns["time"])):
                    continue
                if line > most:
                    raise UserError(f"{path}: unpacks to more than {most} rows; keep the years that are needed")
                time = _time(path, line, _first(row, columns["time"]))
                first, last = min(first, time), max(last, time)
                if not window[0] <= time <= window[1]:
                    continue
                value = {what: _first(row, places) for what, places in columns.items()}
                fix = _fix(path, line, value, selection)
                if fix and "spur" not in value.get("kind", ""):
                    name = value.get("name", "")
                    named = "" if name in _UNNAMED else name
                    rows.setdefault(value["track"], ({}, named))[0].setdefault(time, (time, *fix))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: cannot be read as csv ({reason(error)}); give best tracks such as IBTrACS") from error
    if first > last:
        raise UserError(f"{path}: has no rows; give best tracks such as IBTrACS")
    tracks = [_track(track, name, sorted(fixes.values())) for track, (fixes, name) in rows.items()]
    return Tracks(path, tracks, np.datetime64(first, "s"), np.datetime64(last, "s"))


def _find_columns(path, header: list[str], selection: Selection) -> dict[str, list[int]]:
    names = [name.strip().lower() for name in header]
    columns = {what: [names.index(name) for name in known if name in names] for what, known in _COLUMNS.items()}
    needed = [*_NEEDED, *["wind"] * (selection.min_wind > 0), *["basin"] * bool(selection.basins)]
    for what in needed:
        if not columns[what]:
            waive = {"wind": "; give --min-wind 0", "basin": "; leave --basins out"}.get(what, "; add the column")
            raise UserError(
                f"{path}: no column of the {what} ({' or '.join(_COLUMNS[what])}), only {', '.join(names[:20])}{waive}"
            )
    return {what: places for what, places in columns.items() if places}


def _first(row: list[str], places: list[int]) -> str:
    return next((text for place in places if place < len(row) and (text := row[place].strip())), "")


def _time(path, line: int, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        raise UserError(f"{path}: line {line}: {text!r} is not a time; fix or delete the line") from None
    return time.astimezone(timezone.utc).replace(tzinfo=None) if time.tzinfo else time


def _fix(path, line: int, value: dict[str, str], selection: Selection):
    """(latitude, longitude, wind, counts), or None for a row without a position or a wind that is needed."""
    if not value["latitude"] or not value["longitude"]:
        return None
    wind = value.get("wind", "")
    try:
        numbers = []
        for what, low, high in (("latitude", -90, 90), ("longitude", -180, 360)):
            numbers.append(float(value[what]))
            if not low <= numbers[-1] <= high:
                raise ValueError
        what = "wind"
        knots = float(wind) if wind else math.nan
    except ValueError:
        raise UserError(f"{path}: line {line}: {value[what]!r} is not a {what}; fix or delete the line") from None
    # Some extracts write a missing value as a negative one.
    knots = knots if knots >= 0 else math.nan
    if selection.min_wind > 0 and math.isnan(knots):
        return None
    status, basin = value.get("status", ""), value.get("basin", "NA")
    # Pandas takes the North Atlantic's NA for a missing value and writes it as a blank.
    known = status in _UNKNOWN or not selection.statuses or status in selection.statuses
    counts = known and (not selection.basins or (basin or "NA") in selection.basins)
    return *numbers, knots, counts


def _track(track: str, name: str, fixes: list[tuple]) -> Track:
    times, latitudes, longitudes, winds, counts = zip(*fixes, strict=True)
    positions = (np.array(values, np.float64) for values in (latitudes, longitudes, winds))
    return Track(track, name or track, np.array(times, "datetime64[s]"), *positions, np.array(counts, bool))
