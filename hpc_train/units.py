"""Numbers with their units, as people read them."""

MIB = 2**20


def number(value: float) -> str:
    """For people: three figures, and all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rate(samples_per_s: float) -> str:
    """For people: whole samples, and three digits where there are few."""
    return f"{samples_per_s:.0f}" if samples_per_s >= 100 else f"{samples_per_s:.3g}"


def size(count: float) -> str:
    """Bytes for people, such as 56.6 MB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} {unit}"
        count /= 1000
    raise AssertionError
