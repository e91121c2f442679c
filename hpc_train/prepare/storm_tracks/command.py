"""`hpc-train prepare storm-tracks`: labels the cyclones in real winds by their best tracks."""

from dataclasses import dataclass
from pathlib import Path

from hpc_train.data.shards.compression import Compression
from hpc_train.errors import UserError

RADIUS_KM = 300.0


@dataclass(frozen=True, kw_only=True)
class StormTracks:
    """Label gridded fields with the best tracks of tropical cyclones, as shards for the climate trainer.

    Pixels within the radius of a cyclone are of class 1 (tc), all others of class 0 (background). The position of a
    cyclone is interpolated in time along the great circle between its fixes. Beside the shards of each split,
    storms-SPLIT.csv lists the time of every map and the cyclones in it.
    """

    fields: tuple[str, ...]
    """NetCDF files, classic or NetCDF-4, or quoted patterns such as 'era5_2018*.nc', all on one grid."""
    variables: tuple[str, ...]
    """Variables to use as channels, in this order, such as u10 v10; u@850 is one level, in hPa or the file's unit."""
    tracks: Path
    """Best tracks: the csv of IBTrACS, or an extract with columns such as track_id, time, lat, lon, wind, status; also
    as .gz."""
    output: Path
    """Folder for the shards."""
    splits: tuple[str, ...]
    """The times or files of each split, such as train=2018-09 test=2018-10: years, months, days or ranges of them
    (2018-09-01..2018-09-20, both included), or patterns of file names (test='icon_2022*.nc'). Separate several with
    commas."""
    radius_km: float | None = None
    """Radius in km of the labelled disc, along the surface; by default 300."""
    radius_degrees: float | None = None
    """The radius as an angle, instead of --radius-km."""
    min_wind: float = 34.0
    """Lowest sustained wind of a cyclone in kt: 34 is a tropical storm, 64 a hurricane. With 0, cyclones without a
    known wind count too."""
    statuses: tuple[str, ...] = ("TD", "TS", "TY", "ST", "TC", "HU", "HR", "SD", "SS")
    """Statuses that count, if the tracks have them: by default tropical and subtropical cyclones, not those that have
    turned extratropical (EX, ET, PT) or have no closed circulation (DB, LO, WV). any: all of them."""
    basins: tuple[str, ...] = ()
    """Basins that count (NA EP WP NI SI SP SA); by default all."""
    gap_hours: float = 12.0
    """Positions are not interpolated between fixes that are further apart than this."""
    shards: int | None = None
    """Number of files of each split; by default at least 4, of about 256 MiB each."""
    compression: Compression = "none"
    """none is the fastest to read. The others store inputs and labels in compressed chunks."""

    def check(self) -> None:
        """Check the values of the options.

        Raises:
            UserError: a value is impossible.
        """
        if self.radius_km is not None and self.radius_degrees is not None:
            raise UserError("--radius-km and --radius-degrees both set the radius; give one of them")
        for name, least in (("radius_km", 0), ("radius_degrees", 0), ("gap_hours", 0), ("shards", 0)):
            value = getattr(self, name)
            if value is not None and not least < value < float("inf"):
                raise UserError(f"--{name.replace('_', '-')} is {value}; give a number above {least}")
        if self.gap_hours > 8760:
            raise UserError(f"--gap-hours is {self.gap_hours}, more than a year; give at most 8760")
        if not 0 <= self.min_wind < float("inf"):
            raise UserError(f"--min-wind is {self.min_wind}; give a wind in kt, 0 or more")
        for name in ("fields", "variables", "splits", "statuses"):
            if not getattr(self, name):
                raise UserError(f"--{name} is empty; name at least one")
        if len(set(self.variables)) < len(self.variables):
            raise UserError(f"--variables has a name twice: {', '.join(self.variables)}; give each once")
        if self.radius > 90:
            raise UserError(f"the radius is {self.radius:.4g} degrees, more than half the Earth; give a smaller one")

    @property
    def radius(self) -> float:
        """Radius of a disc in degrees."""
        from hpc_train.prepare.storm_tracks.great_circle import km_to_degrees

        return self.radius_degrees or km_to_degrees(RADIUS_KM if self.radius_km is None else self.radius_km)


def run(options: StormTracks) -> None:
    """Write the shards and lists of storms of all splits, and print two lines for each.

    Raises:
        UserError: an option or a file is wrong, or the shards cannot be written.
    """
    from hpc_train.parallel.mpi import job, on_root
    from hpc_train.prepare.storm_tracks.convert import convert

    def on_one_rank():
        options.check()
        convert(options)

    with job() as comm:
        on_root(comm, on_one_rank)
