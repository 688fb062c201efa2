"""Sphinx's settings for `./doit docs`: the pages as they lie here, nothing fetched by a reader."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
INDEX = "docs/README.md"  # its headings and links are the site's menu
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs")

project = "DomU pipeline"
extensions = ["myst_parser"]
root_doc = "README"
source_suffix = {".md": "markdown"}
exclude_patterns = [name for name in os.listdir(ROOT) if name not in PAGES]
myst_heading_anchors = 4  # links to headings are checked, as GitHub names them
highlight_language = "none"

html_theme = "furo"
html_title = project
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "light_css_variables": {"font-stack": "system-ui, sans-serif"},
    "top_of_page_buttons": [],
}


def add_menu(_app: object, page: str, source: list[str]) -> None:
    """Give the front page the menu: one tree for each heading of the index."""
    if page != root_doc:
        return
    trees = ["```{toctree}\n:hidden:\n\ndocs/README\n```"]
    index = (ROOT / INDEX).read_text(encoding="utf-8")
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        links = re.findall(r"\[([^]]+)\]\(([^)#:]+)\.md\)", text)
        pages = [
            f"{name.replace('`', '')} <{os.path.normpath(f'docs/{link}')}>" for name, link in links
        ]
        head = ["```{toctree}", ":hidden:", f":caption: {title}", ""]
        trees.append("\n".join([*head, *pages, "```"]))
    source[0] = "\n\n".join([source[0], *trees])


def add_entrance(app: Any, error: Exception | None) -> None:
    """The name that a browser and a web server look for first."""
    if error is None:
        page = '<!doctype html><meta http-equiv="refresh" content="0; url=README.html">\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", add_menu)
    app.connect("build-finished", add_entrance)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
