"""Which channels change their sign where a map is mirrored at the equator, by their names."""

import re

# Winds to the north (v, va, vas, vwnd, vgrd, VBOT), currents (vo), stress (tauy) and vorticity (vo, vor, vort), with
# or without a level (V850, v@850, v10m, va_500hPa) or before it (10v).
_SHORT = re.compile(r"(v|va|vas|vbot|vwnd|vgrd|vo|vor|vort|tauy)([_@]?\d+(\.\d+)?(m|hpa|mb)?)?|\d+v", re.IGNORECASE)
_LONG = re.compile(r"northward|meridional|v[-_]component|vorticity", re.IGNORECASE)


def is_meridional(name: str) -> bool:
    """Whether a channel of that name turns its sign: a vector's part to the north, or a rotation."""
    return bool(_SHORT.fullmatch(name) or _LONG.search(name))
