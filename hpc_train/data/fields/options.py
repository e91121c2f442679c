"""The options of trainers on fields: maps of several channels with a class for each pixel, such as climate data."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hpc_train.data.catalogue.class_map import IGNORED, ClassMap, number_of
from hpc_train.data.catalogue.layout import CLIMATE_CLASSES, STATISTICS_FILES
from hpc_train.data.fields.geometry import GeometryOptions, geometry_of, grid_of, recorded
from hpc_train.data.options import LabelOptions, is_synthetic
from hpc_train.errors import UserError

# Winds to the north (v, va, vas, vwnd, vgrd, VBOT), currents (vo), stress (tauy) and vorticity (vo, vor, vort), with
# a level after (V850, v@850, v10m, va_500hPa) or before them (10v), or without.
_SHORT = re.compile(r"(v|va|vas|vbot|vwnd|vgrd|vo|vor|vort|tauy)([_@]?\d+(\.\d+)?(m|hpa|mb)?)?|\d+v", re.IGNORECASE)
# Kinds of --augment.
_AUGMENT = ("roll", "flip", "mirror")
_LONG = re.compile(r"northward|meridional|v[-_]component|vorticity", re.IGNORECASE)


@dataclass(frozen=True)
class FieldOptions(GeometryOptions, LabelOptions):
    """Which channels and classes of the fields to use, and how to normalise and vary them."""

    GROUP = "field"

    fields: tuple[str, ...] = ()
    """Channels to give the network, by name and in this order, such as TMQ U850 V850; by default all."""
    class_map: tuple[int, ...] = ()
    """Class of each stored label: 0 2 1 makes label 1 class 2; -1: its pixels are ignored. By default each label is a
    class of the same number."""
    normalise: Literal["mean-std", "min-max", "none"] = "mean-std"
    """Scale each channel by --statistics: to mean 0 and standard deviation 1, or its range to 0..1; none: do not
    scale."""
    statistics: Path | None = None
    """File from `hpc-train stats`, or the stats.h5 published with the data; by default the one beside the data."""
    augment: tuple[Literal["roll", "flip", "mirror"], ...] = ()
    """How training varies maps. roll: turn each global map in longitude by a random number of columns; flip: mirror a
    map at the equator half of the time, and change the sign of its northward winds (--meridional), or turn a plain
    picture upside down half of the time; mirror: swap left and right of a plain picture half of the time."""
    random_crop: tuple[int, int] | None = None
    """Train on a random part of each map, of this height and width; it may cross the left and right edge of a global
    map (--geometry globe). Validation takes whole maps."""
    meridional: tuple[str, ...] = ()
    """Channels whose sign --augment flip changes; by default northward winds and vorticity, by their usual names: V850,
    VBOT, v10, v@850, va, vo, ..."""
    field_size: tuple[int, int] = (768, 1152)
    """With --data synthetic: height and width of the maps."""

    def check_fields(self) -> None:
        """UserError for invalid values and combinations."""
        for name in ("random_crop", "field_size"):
            size = getattr(self, name)
            if size and min(size) < 1:
                raise UserError(f"--{name.replace('_', '-')} {size[0]} {size[1]}: give a height and width of 1 or more")
        self.check_annotation()
        if twice := sorted({name for name in self.fields if self.fields.count(name) > 1}):
            raise UserError(f"--fields names {twice[0]} twice; leave one of them out")
        if self.class_map and (min(self.class_map) < IGNORED or max(self.class_map) < 0):
            raise UserError(
                f"--class-map {' '.join(map(str, self.class_map))}: give the class of each stored label, from 0, or -1 "
                "for ignored pixels"
            )
        if self.class_map and self.classes and self.classes != len(self.class_map):
            raise UserError(
                f"--class-map is for {len(self.class_map)} stored labels, but --classes is {self.classes}; leave "
                "--classes out"
            )
        if self.meridional and "flip" not in self.augment:
            raise UserError("--meridional is for --augment flip; give both or leave it out")

    @property
    def ignored(self) -> int | None:
        """The class of ignored pixels, as the loss and the scores see it; None where no pixel is ignored."""
        some = self.ignore_label is not None or IGNORED in self.class_map
        return IGNORED if some else None

    def catalogue(self, split: str | None = "train", comm=None, data: Path | None = None, classes: int | None = None):
        """The catalogue of `split` with one label map for each sample; collective over `comm`.

        Its targets are as stored: labels in [0, classes), or --ignore-label; `classes_of` maps them to classes.
        Files of CAM5, the paper and ClimateNet have 3 classes by default. The classes have names where their order is
        known, which is not so in ClimateNet.

        Args:
            split: as in `DataOptions.catalogue`.
            comm: as in `DataOptions.catalogue`.
            data: as in `DataOptions.catalogue`.
            classes: number of stored labels, if known.

        Raises:
            UserError: on every rank, for samples that are not maps (height, width, channels) with a label for each
                pixel.
        """
        mapped = bool(self.class_map) or self.ignore_label is not None
        # Labels that the map does not cover are reported at the first sample that has one.
        plain = replace(self, classes=None if mapped else self.classes, class_names=())
        found = super(FieldOptions, plain).catalogue(split, comm, data, None if mapped else classes)
        found.stored_only("a trainer on fields")
        found = self.with_channels(self.one_label_map(found, comm))
        _check_maps(found)
        published = found.layout.name in ("cam5", "paper", "climatenet")
        names = len(self.class_names)
        stored = classes or self.classes or (names if mapped else 0) or found.classes or names
        stored = stored or len(CLIMATE_CLASSES) * published
        if not (stored or self.class_map):
            raise UserError(
                f"{found.files[0]}: does not give the number of classes; give --classes or --class-names"
            ).agreed()
        try:
            stored = ClassMap.of(found.files[0], stored, self.class_map, self._ignored_number(found)).stored
        except UserError as error:
            raise error.agreed() from None
        if names:
            return self.named(found, stored)
        named = published and found.layout.name != "climatenet" and stored == len(CLIMATE_CLASSES)
        return replace(found, classes=stored, class_names=CLIMATE_CLASSES if named else found.class_names)

    def classes_of(self, stored) -> ClassMap:
        """The map from the labels of a catalogue that `catalogue` returned to classes."""
        return ClassMap.of(stored.files[0], stored.classes, self.class_map, self._ignored_number(stored))

    def _ignored_number(self, catalogue) -> int | None:
        return number_of(self.ignored_label(catalogue), catalogue.labels)

    def transform(self, stored, comm=None):
        """The `FieldTransform` of a catalogue that `catalogue` returned; None where samples stay as stored.

        Collective over `comm`.

        Raises:
            UserError: on every rank, when the samples cannot be varied as --augment and --random-crop ask.
        """
        from hpc_train.data.tensors.field_transform import FieldTransform

        grid = self._grid(stored, comm) if self.augment or self.random_crop else None
        classes, (roll, flip, mirror) = self.classes_of(stored), (kind in self.augment for kind in _AUGMENT)
        picture = grid is not None and grid.geometry == "picture"
        turned = self._turned(stored) if flip and not picture else ()
        wraps = grid is None or (grid.geometry == "globe" and grid.goes_round)
        made = FieldTransform(stored, classes, roll, flip, self.random_crop, turned, wraps, mirror, picture)
        return made if made.varies or classes.changes else None

    def recorded_geometry(self, stored) -> dict:
        """What run.json keeps of the maps, so that `hpc-train predict` knows it of data that do not say it.

        Returns:
            `geometry`, and where the maps have degrees `latitudes` and `longitudes`: the first and last one of even
            steps, else all.
        """
        try:
            grid = grid_of(stored, self.geometry)
        except UserError:
            return {"geometry": geometry_of(stored, self.geometry)}
        return recorded(grid)

    def load_statistics(self, comm=None):
        """The `data.statistics.Statistics` of the stored channels and classes, read by rank 0; collective.

        Returns:
            Those of standard normal channels with --data synthetic. None with --normalise none, where there are no
            statistics beside the data.

        Raises:
            UserError: on every rank, when they are missing or cannot be read.
        """
        from hpc_train.parallel.mpi import Alone, on_root

        return on_root(comm or Alone(), self._load_statistics)

    def class_counts(self, statistics, classes: int):
        """Number of pixels of each of the network's `classes`, int64 (classes,); None where the statistics have none.

        Raises:
            UserError: when the classes are not those of the statistics.
        """
        if statistics is None or not len(statistics.class_counts):
            return None
        stored = len(self.class_map) or classes
        return ClassMap.of("the statistics", stored, self.class_map, self.ignore_label).counts(statistics.class_counts)

    def _load_statistics(self):
        from hpc_train.data.fields.synthetic import field_statistics
        from hpc_train.data.statistics import load_statistics

        if is_synthetic(self) and not self.statistics:
            return field_statistics(self)
        folder = self.data if self.data.is_dir() else self.data.parent
        beside = next((folder / name for name in STATISTICS_FILES if (folder / name).is_file()), None)
        path = self.statistics or beside
        if path:
            return load_statistics(path)
        if self.normalise == "none":
            return None
        raise UserError(
            f"{folder}: has no {' or '.join(STATISTICS_FILES[:2])} to normalise the channels; make one with `hpc-train "
            f"stats --data {self.data}`, name one with --statistics, or give --normalise none"
        )

    def _grid(self, stored, comm):
        """Where the maps are; UserError where they do not allow --augment."""
        from hpc_train.parallel.mpi import Alone, on_root

        path = stored.files[0]
        grid = on_root(comm or Alone(), lambda: grid_of(stored, self.geometry))
        if grid.numbered:
            self._check_numbered(stored, grid.geometry)
            return grid
        if "mirror" in self.augment:
            raise UserError(
                f"{path}: holds maps with latitudes and longitudes, in which east and west cannot be swapped; leave "
                "--augment mirror out, or give --geometry picture"
            ).agreed()
        for option, fits, axis, what in (
            ("roll", grid.goes_round, grid.longitudes, "longitudes, which do not go around the globe in even steps"),
            ("flip", grid.mirrored, grid.latitudes, "latitudes, which are not symmetric about the equator"),
        ):
            if option in self.augment and not fits:
                raise UserError(
                    f"{path}: has {len(axis)} {what} ({axis[0]:g} to {axis[-1]:g}); leave --augment {option} out"
                ).agreed()
        return grid

    def _check_numbered(self, stored, geometry: str) -> None:
        """Refuse an --augment that maps without degrees do not allow."""
        path = stored.files[0]
        if "flip" in self.augment and not geometry:
            # Says what the channels lack before what the maps lack.
            self._turned(stored)
        allowed = ("flip", "mirror") if geometry == "picture" else ()
        if wrong := [kind for kind in self.augment if kind not in allowed]:
            what = f"holds a {geometry}" if geometry == "picture" else "does not say where its maps lie"
            remedy = "for maps of the whole Earth give --geometry globe"
            remedy += "" if geometry == "picture" else ", for photographs and the like --geometry picture"
            raise UserError(f"{path}: {what}, and so takes no --augment {wrong[0]}; leave it out, or {remedy}").agreed()

    def _turned(self, stored) -> tuple[int, ...]:
        """Numbers of the channels whose sign changes in a mirrored map."""
        try:
            if self.meridional:
                return tuple(chosen_channels(stored, self.meridional, "--meridional"))
        except UserError as error:
            raise error.agreed() from None
        if not stored.channel_names:
            raise UserError(
                f"{stored.files[0]}: does not name its channels, so --augment flip cannot find the winds whose sign "
                "must change; leave flip out, or give data with named channels"
            ).agreed()
        return tuple(number for number, name in enumerate(stored.channel_names) if is_meridional(name))


def _check_maps(catalogue) -> None:
    axis, shape = catalogue.channel_axis, catalogue.input_shape
    where = shape[1:] if axis == 0 else shape[:-1]
    if len(shape) != 3 or catalogue.target_shape != where:
        raise UserError(
            f"{catalogue.files[0]}: a sample has inputs {shape} and targets {catalogue.target_shape}; give maps of "
            "(height, width, channels), or with --channels first (channels, height, width), and labels of (height, "
            "width)"
        ).agreed()


def chosen_channels(catalogue, fields: tuple[str, ...], option: str = "--fields") -> list[int]:
    """Numbers of the channels that `fields` names, in its order; UserError for an unknown name."""
    names = catalogue.channel_names
    where = catalogue.files[0]
    if fields and not names:
        raise UserError(f"{where}: does not name its channels; leave {option} out, or give data with named channels")
    if missing := [name for name in fields if name not in names]:
        raise UserError(f"{where}: has no channel {missing[0]!r} for {option}; it has {', '.join(names)}")
    return [names.index(name) for name in fields]


def is_meridional(name: str) -> bool:
    """Whether the sign of a channel of this name changes: the northward part of a vector, or a rotation."""
    return bool(_SHORT.fullmatch(name) or _LONG.search(name))
