"""The fields that a picture of a map shows: channels by name, and wind speed from pairs of components."""

import re
from dataclasses import dataclass

import numpy as np

from hpc_train.errors import UserError

# Units of the variables of CAM5, and common names of winds.
_UNITS = {
    "TMQ": "kg m⁻²",
    "QREFHT": "kg kg⁻¹",
    "PS": "Pa",
    "PSL": "Pa",
    "T200": "K",
    "T500": "K",
    "PRECT": "m s⁻¹",
    "TS": "K",
    "TREFHT": "K",
    "Z1000": "m",
    "Z200": "m",
    "ZBOT": "m",
}
_WIND = "m s⁻¹"
_COMPONENT = re.compile(r"([uUvV])(BOT|wind|[@_-]?\d+m?)?")


@dataclass(frozen=True)
class Field:
    """The field of one panel: a channel, or the speed of a wind from its two components.

    Args:
        title: its name.
        channels: numbers of one or two channels.
        units: "" if they are not known.
    """

    title: str
    channels: tuple[int, ...]
    units: str

    def of(self, sample: np.ndarray, packing) -> np.ndarray:
        """Its values, float64 (height, width).

        Args:
            sample: (height, width, channels) as stored.
            packing: (scale, offset) of all channels, or of each channel.
        """
        parts = [values(sample, packing)[..., i] for i in self.channels]
        return np.hypot(*parts) if len(parts) == 2 else parts[0]


def values(sample: np.ndarray, packing) -> np.ndarray:
    """What stored numbers mean, float64 (height, width, channels).

    Args:
        sample: (height, width, channels) as stored.
        packing: (scale, offset) of all channels, or of each channel.
    """
    scale, offset = np.broadcast_to(np.array(packing, float), (sample.shape[-1], 2)).T
    return sample.astype(np.float64) * scale + offset


def choose(names: tuple[str, ...], channels: int, asked: tuple[str, ...] = ()) -> list[Field]:
    """The fields that are `asked` for, else wind speed and total water, else the first channel.

    Args:
        names: of the channels; without names, channels are called by their numbers, counted from 0.
        channels: number of channels.
        asked: names of channels, and pairs such as U850+V850 for the speed of a wind.

    Raises:
        UserError: a name is not that of a channel.
    """
    if asked:
        return [_named(text, names, channels) for text in asked]
    pairs = [(i, names.index(partner)) for i, name in enumerate(names) if (partner := meridional(name)) in names]
    fields = [_speed(names, *pairs[0])] if pairs else []
    fields += [_channel(names, i) for i, name in enumerate(names) if name.upper() in ("TMQ", "TCWV", "PWAT")]
    return fields or [_channel(names, 0)]


def meridional(name: str) -> str | None:
    """Name of a wind's northward component, from that of its eastward one (U850, u10, u@850); None for other names."""
    partner = {"U": "V", "u": "v"}.get(name[:1])
    return partner + name[1:] if partner and _COMPONENT.fullmatch(name) else None


def _named(text: str, names, channels: int) -> Field:
    indices = [_index(part, names, channels) for part in text.split("+")]
    if len(indices) > 2:
        raise UserError(f"--show {text}: give one channel, or the two components of a wind such as U850+V850")
    return _speed(names, *indices) if len(indices) == 2 else _channel(names, indices[0])


def _index(text: str, names, channels: int) -> int:
    if text in names:
        return names.index(text)
    if text.isdigit() and int(text) < channels:
        return int(text)
    there = ", ".join(names) if names else f"0 to {channels - 1}, which have no names"
    raise UserError(f"--show {text}: no such channel; the channels are {there}")


def _channel(names, index: int) -> Field:
    name = names[index] if names else f"channel {index}"
    return Field(name, (index,), _WIND if _COMPONENT.fullmatch(name) else _UNITS.get(name, ""))


def _speed(names, eastward: int, northward: int) -> Field:
    pair = [_channel(names, i).title for i in (eastward, northward)]
    level = pair[0][1:]
    known = names and meridional(pair[0]) == pair[1]
    title = {"": "Wind speed", "BOT": "Wind speed at the lowest level"}.get(level, f"Wind speed ({', '.join(pair)})")
    return Field(title if known else f"Speed of {' and '.join(pair)}", (eastward, northward), _WIND if known else "")
