"""Links from pages to files of the repository that are no pages.

A link to a file outside docs/ becomes a link into the repository where conf.py has `repository_url`, and else the
link's text with the file's name. A link to a file that a page includes (CONTRIBUTING.md) goes to that page. A file that
does not exist is a warning, so a strict build fails. In a page that includes a file, links are relative to that file,
as they are for those who read it in the repository.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

_log = logging.getLogger(__name__)
_INCLUDE = re.compile(r"^```\{include\} (\S+)", re.M)


class RepositoryLinks(SphinxTransform):
    """Resolves what MyST left as a download or as an unknown target."""

    default_priority = 5

    def apply(self, **kwargs) -> None:
        """Replace the links of one page."""
        docs = Path(self.env.srcdir).resolve()
        folder = self._origin(docs).parent
        for link in list(self.document.findall(_is_path)):
            path, anchor = _target(link)
            file = (folder / path).resolve()
            page = _pages(docs).get(file)
            if page:
                link.replace_self(_to_page(link, page, anchor))
            elif file.exists() and file.is_relative_to(docs.parent):
                link.replace_self(self._to_repository(link, file.relative_to(docs.parent).as_posix()))
            else:
                _log.warning("no file %s in the repository", path, location=link)
                link.replace_self(link.children)

    def _origin(self, docs: Path) -> Path:
        """The file that the text of this page stands in."""
        page = Path(self.env.doc2path(self.env.docname))
        return next((file for file, name in _pages(docs).items() if name == self.env.docname), page)

    def _to_repository(self, link: nodes.Element, path: str) -> nodes.Element:
        url = self.config.repository_url
        if url:
            return nodes.reference("", "", *link.children, refuri=f"{url.rstrip('/')}/{path}", internal=False)
        shown = nodes.inline("", "", *link.children)
        if Path(path).name not in link.astext():
            shown += [nodes.Text(" ("), nodes.literal(path, path), nodes.Text(")")]
        return shown


def _is_path(node: nodes.Node) -> bool:
    if not isinstance(node, addnodes.download_reference | addnodes.pending_xref) or node.get("reftype") != "myst":
        return False
    target = node["reftarget"]
    # MyST takes a Markdown file outside docs/ for a page, with its whole path as the name.
    return target.startswith("/") if node.get("refdomain") else not target.startswith("#")


def _target(link: nodes.Element) -> tuple[str, str]:
    """The path that a link names, and the place in it."""
    if link.get("refdomain"):
        return link["reftarget"] + ".md", link.get("reftargetid") or ""
    path, _, anchor = link["reftarget"].partition("#")
    return path, anchor


def _pages(docs: Path) -> dict[Path, str]:
    """File -> page: the pages of the site, and the files outside docs/ that a page includes."""
    pages = {file: file.relative_to(docs).with_suffix("").as_posix() for file in docs.rglob("*.md")}
    for file, name in list(pages.items()):
        for target in _INCLUDE.findall(file.read_text()):
            del pages[file]
            pages[(file.parent / target).resolve()] = name
    return pages


def _to_page(link: nodes.Element, page: str, anchor: str) -> addnodes.pending_xref:
    return addnodes.pending_xref(
        "",
        *link.children,
        refdomain="doc",
        reftarget=page,
        reftargetid=anchor or None,
        refdoc=link["refdoc"],
        reftype="myst",
        refexplicit=link["refexplicit"],
    )


def setup(app):
    """Sphinx calls it."""
    app.add_config_value("repository_url", "", "env")
    app.add_transform(RepositoryLinks)
    return {"parallel_read_safe": True}
