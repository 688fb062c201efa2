"""The page itself: one HTML file that needs no network and no script, and may have none.

Everything that is filled in is escaped by Jinja2, what steers text is shown as \\uNNNN, and the
page's own policy (Content-Security-Policy) allows its style sheet and its pictures alone.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from pipeline.console.terminal import printable
from pipeline.report.page_contents import Contents, show_time

LARGEST = 30  # packages that get a bar


def render_page(contents: Contents, *, written_at: float) -> str:
    """The HTML; `written_at` is in seconds since 1970."""
    style = _read("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    packages = contents.packages
    return _ENVIRONMENT.get_template(
        "page.html.j2"
    ).render(
        style=Markup(style),  # noqa: S704 - our own file
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        guest=contents,
        written_at=show_time(written_at),
        largest=packages[:LARGEST],
        widest=max((package.kib for package in packages), default=0) or 1,
        total=sum(package.kib for package in packages),
    )


def _read(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text()


def _show(value: object) -> object:
    return value if isinstance(value, Markup) else printable(str(value))


def _size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


_ENVIRONMENT = Environment(
    loader=FunctionLoader(_read),
    undefined=StrictUndefined,
    autoescape=True,
    finalize=_show,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(size=_size, time=show_time, quote=shlex.quote)
