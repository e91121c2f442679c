"""Builds a page of HTML that needs no other file: text, tables and figures, for light and dark, phone and desktop."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

# WCAG 2.2 AA: text has a contrast of 4.5 : 1 and more in both schemes.
_STYLE = """
:root{color-scheme:light dark;
--ink:#1b1f24;--soft:#555d66;--paper:#ffffff;--panel:#f5f6f8;--grid:#e3e6ea;--link:#0b5cad}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#aab1ba;--paper:#14171a;--panel:#1e2226;--grid:#353b42;
--link:#7cb8ff}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1240px;padding:1rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.4rem 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--grid)}
h3{font-size:1rem;margin:1.4rem 0 .4rem;overflow-wrap:anywhere}
p,ul{max-width:70rem;margin:.5rem 0}
ul{padding-left:1.2rem}
p,li{overflow-wrap:anywhere}
.soft,figcaption{color:var(--soft);font-size:.9rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:1rem}
figure{margin:0;max-width:440px}
figure svg{display:block;width:100%;height:auto}
svg text{fill:var(--ink)}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;list-style:none;padding:0;margin:.6rem 0;font-size:.9rem}
.legend svg{width:2.2rem;height:.9rem;margin-right:.4rem;vertical-align:middle}
.wide{overflow-x:auto;width:fit-content;max-width:100%;margin:.6rem 0;border:1px solid var(--grid);border-radius:6px}
.wide:focus-visible{outline:2px solid var(--link)}
table{border-collapse:separate;border-spacing:0;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.5rem .7rem;color:var(--soft);font-size:.875rem}
caption span{position:sticky;left:.7rem;display:inline-block;max-width:calc(100vw - 4rem)}
th,td{padding:.35rem .5rem;vertical-align:top;text-align:right;white-space:nowrap;border-top:1px solid var(--grid)}
thead th{background:var(--panel);vertical-align:bottom}
th:first-child,.word{text-align:left}
tbody th{font-weight:600;background:var(--paper)}
th:first-child{position:sticky;left:0}
@media(max-width:600px){tbody th{white-space:normal;min-width:6.5rem;max-width:9rem}}
.table thead th{white-space:normal;max-width:7.5rem}
.matrix thead th:not(:first-child){writing-mode:vertical-rl;text-align:left;padding:.5rem .2rem}
.matrix td{background:color-mix(in srgb,var(--link) calc(var(--share)*45%),var(--paper));padding:.2rem .4rem}
.matrix td.right{outline:1px solid var(--soft);outline-offset:-2px}
td.word{white-space:normal;min-width:14rem;overflow-wrap:anywhere}
pre{overflow-x:auto;background:var(--panel);padding:.7rem;border-radius:6px;font-size:.8125rem;line-height:1.45}
details{margin:.6rem 0}
summary{cursor:pointer;color:var(--link)}
@media print{details>*{display:block}}
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document; the parts are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, parts: Iterable[str]) -> str:
    """A heading and the parts below it, which are HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def paragraph(text: str, soft: bool = False) -> str:
    """A paragraph of text."""
    return f'<p class="soft">{escape(text)}</p>' if soft else f"<p>{escape(text)}</p>"


def listed(lines: Sequence[str]) -> str:
    """A bulleted list of lines; empty without lines."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def chart(svg: str, caption: str) -> str:
    """A figure with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def charts(figures: Iterable[str]) -> str:
    """Figures, side by side if the screen is wide enough."""
    return '<div class="charts">' + "\n".join(figures) + "</div>"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """A legend of (swatch, label) for each curve; the swatch is SVG."""
    return '<ul class="legend">' + "".join(f"<li>{swatch}{escape(label)}</li>" for swatch, label in entries) + "</ul>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    """A table in a box that scrolls sideways on a narrow screen.

    The first cell of a row is its name; neighbouring rows with the same name share one cell.

    Args:
        caption: above the table.
        heads: of the columns.
        rows: text of the cells.
        words: numbers of the columns that hold text, not figures.
    """
    kinds = (' class="word"' if place in words else "" for place in range(len(heads)))
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, heads, strict=True))
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row[0])]
    body = "".join(_row(row, words, len(group) * (place == 0)) for group in groups for place, row in enumerate(group))
    return _box("table", caption, head, body)


def matrix(caption: str, corner: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A square table of counts, darker for larger shares of a row, in a box that scrolls sideways on a narrow screen.

    Args:
        caption: above the table.
        corner: what rows and columns are.
        names: of rows and columns.
        counts: of the cells; zeros are left empty.
    """
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = []
    for place, (name, row) in enumerate(zip(names, counts, strict=True)):
        whole = max(1, sum(row))
        cells = (
            f'<td{" class=right" * (column == place)} style="--share:{count / whole:.2f}">'
            f"{f'{count:,}' if count else ''}</td>"
            for column, count in enumerate(row)
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return _box("matrix", caption, f'<th scope="col">{escape(corner)}</th>{heads}', "".join(rows))


def code(text: str) -> str:
    """Text as it is, in a box that scrolls sideways."""
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, text: str) -> str:
    """Preformatted text that opens at a click on its title."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _box(kind: str, caption: str, head: str, body: str) -> str:
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}"><caption>'
        f"<span>{escape(caption)}</span></caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str], words: Sequence[int], named: int) -> str:
    """A row whose name stands for `named` rows; 0: a row above has the name."""
    kinds = (' class="word"' if place in words else "" for place in range(1, len(cells)))
    rest = "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, cells[1:], strict=True))
    scope = f'scope="rowgroup" rowspan="{named}"' if named > 1 else 'scope="row"'
    return f"<tr>{f'<th {scope}>{escape(cells[0])}</th>' if named else ''}{rest}</tr>"
