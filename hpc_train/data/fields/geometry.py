"""Field geometry: whether maps go around the globe, show a region of it, or are plain pictures."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hpc_train.data.catalogue.layout import CAM5, CAM5_CHANNELS, CLIMATE_CLASSES, PAPER
from hpc_train.data.fields.grid import Grid, curved_grid, global_grid, numbered_grid, read_grid
from hpc_train.errors import UserError

Geometry = Literal["globe", "region", "picture"]
_GLOBES = (CAM5.name, PAPER.name, "climatenet")
_EASTWARD = {"v": "u", "V": "U"}


@dataclass(frozen=True)
class GeometryOptions:
    """What the maps are maps of."""

    GROUP = "field"

    geometry: Geometry | None = None
    """What the maps show. globe: the whole Earth, whose left and right edges are neighbours; region: a part of it;
    picture: no map, such as a photograph. By default as the files say it: by their latitudes and longitudes, their
    layout, or as recorded in shards."""


def geometry_of(catalogue, asked: Geometry | None = None) -> str:
    """The geometry of a catalogue's maps, as `grid_of` finds it; "" where nothing says it, or the grid is damaged."""
    try:
        return grid_of(catalogue, asked).geometry
    except UserError:
        return asked or catalogue.geometry


def grid_of(catalogue, asked: Geometry | None = None, size: tuple[int, int] | None = None) -> Grid:
    """Where the rows and columns of a catalogue's maps are, from its first file.

    Args:
        catalogue: of maps.
        asked: the option --geometry; by default what the data say.
        size: height and width of the maps; by default those of the label maps.

    Returns:
        The grid. Its `geometry` is "" where nothing says what the maps show.

    Raises:
        UserError: coordinates in the file do not fit the maps, or the geometry that is asked for.
    """
    path, (height, width) = catalogue.files[0], size or catalogue.target_shape
    said = asked or catalogue.geometry
    if said == "picture":
        return numbered_grid(height, width, "picture")
    grid = read_grid(path, height, width)
    if not grid.assumed:
        if said == "globe" and not grid.goes_round:
            east = grid.longitudes
            raise UserError(
                f"{path}: its longitudes, {east[0]:g} to {east[-1]:g}, do not go around the globe in even steps; leave "
                "--geometry globe out"
            )
        return replace(grid, geometry=said or grid.geometry)
    if said != "globe" and (curved := curved_grid(path, height, width)):
        return curved
    if said == "globe" or (not said and is_globe(catalogue)):
        return grid
    return numbered_grid(height, width, said or "")


def recorded(grid: Grid) -> dict:
    """A grid as plain values for run.json, from which `grid_of_record` makes one for other maps."""
    if grid.numbered:
        return {"geometry": grid.geometry}
    axes = {"latitudes": grid.latitudes, "longitudes": grid.longitudes}
    return {"geometry": grid.geometry} | {name: _short(axis) for name, axis in axes.items()}


def grid_of_record(facts: dict, height: int, width: int, asked: Geometry | None = None) -> Grid | None:
    """The grid of maps of which only their size is known, by what `recorded` kept of those of training.

    Maps of the size of training lie where those do. Global maps of another size run in the same direction; others have
    no degrees.

    Returns:
        None where neither `facts` nor `asked` say what the maps show.
    """
    geometry = asked or facts.get("geometry")
    if geometry is None:
        return None
    axes = [_long(facts.get(name)) for name in ("latitudes", "longitudes")]
    known = geometry == facts.get("geometry") and all(len(axis) for axis in axes)
    if known and [len(axis) for axis in axes] == [height, width]:
        return Grid(*axes, assumed=True, geometry=geometry)
    if geometry == "globe":
        grid = global_grid(height, width)
        return replace(grid, latitudes=grid.latitudes[::-1]) if known and axes[0][0] > axes[0][-1] else grid
    return numbered_grid(height, width, geometry)


def _short(axis: np.ndarray):
    even = np.linspace(axis[0], axis[-1], len(axis))
    if np.abs(axis - even).max() < 1e-6 * max(1.0, np.ptp(axis)):
        return {"first": float(axis[0]), "last": float(axis[-1]), "number": len(axis)}
    return axis.tolist()


def _long(axis) -> np.ndarray:
    if isinstance(axis, dict):
        return np.linspace(axis["first"], axis["last"], axis["number"])
    return np.array(axis or [], np.float64)


def is_globe(catalogue) -> bool:
    """Whether maps whose file has no coordinates are of the whole Earth, by their layout or their names."""
    names = catalogue.channel_names
    winds = any(_EASTWARD.get(name[:1], "?") + name[1:] in names for name in names)
    return winds or catalogue.class_names == CLIMATE_CLASSES or is_climate(catalogue)


def is_climate(catalogue) -> bool:
    """Whether these are the published climate data, or shards of them."""
    names = catalogue.channel_names
    return catalogue.layout.name in _GLOBES or (bool(names) and set(names) <= set(CAM5_CHANNELS))
