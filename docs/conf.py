"""The site of the pages in this folder: `make docs`."""

import sys
from pathlib import Path

from docutils import nodes

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from hpc_train import __version__  # noqa: E402

project = "hpc-train"
copyright = "the authors of hpc-train, Apache License 2.0"
version = release = __version__

extensions = ["myst_parser", "reference_pages", "repository_links"]
exclude_patterns = ["_ext", "images"]
myst_enable_extensions = ["colon_fence", "deflist"]
# A link to `page.md#heading` finds headings down to this level.
myst_heading_anchors = 4

# Where the repository can be read, as in "https://example.org/hpc-train/blob/main". Links to files outside docs/ go
# there; while it is empty they become the files' names.
repository_url = ""

# `--data` is an option, not a dash.
smartquotes = False

html_theme = "furo"
html_title = f"hpc-train {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"


def setup(app):
    """Mark code in the text whose words fit into a line of a telephone: site.css keeps them together."""
    app.connect("doctree-read", lambda app, page: [_mark_short(code) for code in page.findall(nodes.literal)])


def _mark_short(code):
    if all(len(word) < 36 for word in code.astext().split()):
        code["classes"].append("short")
