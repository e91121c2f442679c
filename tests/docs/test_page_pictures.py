"""The pictures that pages show."""

import pytest
import shown
from PIL import Image

PICTURES = sorted((shown.REPOSITORY / "docs" / "images").glob("*.png"))
# Line charts, which have few colours of their own.
LINES = {"scan.png", "weak-scaling.png"}


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_small_and_has_all_its_colours(path):
    assert path.stat().st_size < 150_000
    # A palette makes one colour of the greys of a map and the brown of its areas.
    assert Image.open(path).mode in ("RGB", "RGBA") or path.name in LINES
