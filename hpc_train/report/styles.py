"""The look of the curves in a study's report, and their legends."""

from collections.abc import Sequence

from hpc_train.plotting import COLOURS

_MARKERS = "os^DvPX*"


def look(number: int) -> dict:
    """Colour, marker and line of the curve of this number; dashes change if there are more curves than colours."""
    dashes = ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
    return {"color": COLOURS[number % len(COLOURS)], "marker": _MARKERS[number % len(_MARKERS)], "linestyle": dashes}


def curves_below(figure, labels: Sequence[str]) -> None:
    """Draw a legend below all charts of a figure; curves are numbered as their labels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label, **look(number)) for number, label in enumerate(labels)]
    _below(figure, handles, labels)


def colours_below(figure, colours: dict[str, str]) -> None:
    """Draw a legend of areas below all charts of a figure."""
    from matplotlib.patches import Patch

    _below(figure, [Patch(color=colour, label=name) for name, colour in colours.items()], list(colours))


def looks_below(figure, looks: dict[str, dict]) -> None:
    """Draw a legend of lines and markers, by their labels, below all charts of a figure."""
    from matplotlib.lines import Line2D

    _below(figure, [Line2D([], [], label=name, **one) for name, one in looks.items()], list(looks))


def swatch(number: int) -> str:
    """The line and marker of a curve, as SVG for the page's legend."""
    return swatch_of(look(number))


def swatch_of(one: dict) -> str:
    """A line, a marker or both, as SVG for the page's legend, from matplotlib's words for them."""
    # Black changes with the page: it is light on a dark page.
    colour = "var(--ink)" if one["color"] == "#000000" else one["color"]
    dashes = {"-": "", "--": "6 3", ":": "2 3", "-.": "6 3 2 3"}.get(one.get("linestyle", "-"))
    line = f'<line x1="1" x2="35" y1="8" y2="8" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
    drawn = ("" if dashes is None else line) + (_marker(one["marker"], colour) if one.get("marker") else "")
    return f'<svg viewBox="0 0 36 16" aria-hidden="true">{drawn}</svg>'


def _marker(name: str, colour: str) -> str:
    from matplotlib.markers import MarkerStyle

    marker = MarkerStyle(name)
    outline = marker.get_path().transformed(marker.get_transform()).to_polygons()[0]
    scale = 4.5 / abs(outline).max()
    points = " ".join(f"{18 + scale * x:.1f},{8 - scale * y:.1f}" for x, y in outline)
    return f'<polygon points="{points}" fill="{colour}"/>'


def area(colour: str) -> str:
    """A patch of one colour, as SVG for the page's legend."""
    return (
        f'<svg viewBox="0 0 36 16" aria-hidden="true"><rect x="4" y="1" width="28" height="14" fill="{colour}"/></svg>'
    )


def _below(figure, handles: Sequence, labels: Sequence[str]) -> None:
    columns = max(1, min(len(labels), int(14 * figure.get_figwidth()) // (max(map(len, labels)) + 6)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
