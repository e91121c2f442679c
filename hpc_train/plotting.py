"""What all pictures share: colours that colour-blind readers can distinguish, a figure's style, and its files."""

import io
import re
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path

# Okabe and Ito 2008, "Color Universal Design"; yellow, which is faint on white, comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_DOTS_PER_INCH = 130


def new_figure(width: float, height: float):
    """An empty `matplotlib.figure.Figure` of this size in inches; it needs no display.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"pictures need matplotlib ({error}); run: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def save(figure, path: Path) -> None:
    """Write a figure as a PNG file.

    Raises:
        UserError: the file cannot be written.
    """
    _plain(figure)
    with atomic_path(path, "name another folder with --output") as temporary:
        figure.savefig(temporary, dpi=_DOTS_PER_INCH, facecolor="white")


def _plain(figure) -> None:
    """Draw all text as it is: a name with two $ is no formula, and may be none that matplotlib can read."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # Matplotlib writes powers of ten as formulas.
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()] if axis.get_scale() != "linear" else []:
                tick.label1.set_parse_math(True)


def svg(figure, name: str, description: str) -> str:
    """A figure as an SVG element for a page, in the page's colours and font, with a text for screen readers.

    Black, white and the grid's grey become the page's --ink, --paper and --grid, so that the page can be dark.

    Args:
        figure: to draw.
        name: unique in the page.
        description: what the figure shows, for screen readers.
    """
    from html import escape

    from matplotlib import rc_context

    _plain(figure)
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for colour, variable in (("#000000", "--ink"), ("#ffffff", "--paper"), ("#e6e6e6", "--grid")):
        drawn = drawn.replace(f": {colour}", f": var({variable})")
    drawn = re.sub(r'font: ([\d.]+px)[^;"]*', r"font-size: \1", drawn)
    drawn = drawn.replace("xlink:href", "href")
    drawn = re.sub(r'((?:\bid|href)="#?|url\(#)', rf"\g<1>{name}-", drawn)
    size = re.search(r'viewBox="[^"]*"', drawn)[0]
    head = f'<svg {size} role="img" aria-label="{escape(description)}">'
    return head + drawn[drawn.index(">") + 1 :].strip()


def clean(axes) -> None:
    """Remove the frame's upper and right lines, and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
