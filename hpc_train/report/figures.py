"""What the suite's pictures have in common: colours that the colour-blind tell apart, and files that are whole."""

from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.files import atomic_path

# Okabe and Ito 2008, "Color Universal Design"; yellow, which is faint on white, comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_DOTS_PER_INCH = 130


def new_figure(width: float, height: float):
    """An empty `matplotlib.figure.Figure` of so many inches; it needs no display.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"pictures need matplotlib ({error}); install it: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def save(figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=_DOTS_PER_INCH, facecolor="white")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another folder with --output") from error


def clean(axes) -> None:
    """Leave out the frame's upper and right lines, and let a faint grid show the values."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
