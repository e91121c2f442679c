"""Numbers and their units, as people read them."""

MIB = 2**20


def number(value: float) -> str:
    """A number to three digits, with all digits before the point: 0.0123, 1.5, 1,234."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rate(samples_per_s: float) -> str:
    """Samples/s as whole numbers, and to three digits below 100."""
    return f"{samples_per_s:.0f}" if samples_per_s >= 100 else f"{samples_per_s:.3g}"


def size(count: float) -> str:
    """Bytes with a decimal unit, to three digits: 56.6 MB."""
    if count < 999.5:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{number(count / 1000)} TB"


def span(seconds: float) -> str:
    """A time as people say it, in its two largest units: 8.3 s, 4 min 12 s, 2 h 11 min, 3 d 4 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3600 - 0.5:
        return _in_two(seconds, "min", "s", 60)
    return _in_two(seconds / 60, "h", "min", 60) if seconds < 86400 - 30 else _in_two(seconds / 3600, "d", "h", 24)


def _in_two(value: float, large: str, small: str, parts: int) -> str:
    many, rest = divmod(round(value), parts)
    return f"{many} {large}" + (f" {rest} {small}" if rest else "")
