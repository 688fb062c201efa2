"""The page itself: one HTML file that needs no network and no script, and may have none.

Everything that is filled in is escaped by Jinja2, what steers text is shown as \\uNNNN, and the
page's own policy (Content-Security-Policy) allows its style sheet and its pictures alone.
"""

import base64
import hashlib
import re
import shlex
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from pipeline.console.terminal import printable
from pipeline.report.page_contents import Contents, show_time
from pipeline.report.words import count, growth, seconds, short_version, size

LARGEST = 30  # packages that get a bar
_CVE = re.compile(r"(CVE-\d{4}-\d{4,7})")


def render_page(contents: Contents, *, written_at: float) -> str:
    """The HTML; `written_at` is in seconds since 1970."""
    packages = contents.packages
    return render_template(
        "page.html.j2",
        ("page.css",),
        guest=contents,
        written_at=show_time(written_at),
        largest=packages[:LARGEST],
        widest=max((package.kib for package in packages), default=0) or 1,
        total=sum(package.kib for package in packages),
    )


def render_template(name: str, styles: Sequence[str], **values: object) -> str:
    """A page of templates/, with its style sheets, under the policy that forbids it all else."""
    style = "".join(_read(sheet) for sheet in styles)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _ENVIRONMENT.get_template(name).render(
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        **values,
    )


def _read(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text()


def _keep_whole(text: str) -> Markup:
    """The text with the numbers of CVEs as words that no line breaks."""
    whole = Markup('<span class="nowrap">{}</span>')
    parts = _CVE.split(printable(text))
    return Markup("").join(whole.format(part) if at % 2 else part for at, part in enumerate(parts))


def _show(value: object) -> object:
    return value if isinstance(value, Markup) else printable(str(value))


_ENVIRONMENT = Environment(
    loader=FunctionLoader(_read),
    undefined=StrictUndefined,
    autoescape=True,
    finalize=_show,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(
    size=size,
    growth=growth,
    seconds=seconds,
    counted=count,
    version=short_version,
    whole=_keep_whole,
    time=show_time,
    quote=shlex.quote,
)
