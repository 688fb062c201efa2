"""Templates: Jinja2 with one rule added, that no value reaches the text without a serializer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.xen.cfg_syntax import quote_string

if TYPE_CHECKING:
    import jinja2

_FOLDER = Path(__file__).with_name("templates")
_LOADING = threading.Lock()


class Quoted(str):
    """Text that a serializer made for the target's syntax; nothing else may be printed."""

    __slots__ = ()


def render_template(name: str, context: dict[str, object]) -> str:
    """A template of pipeline/xen/templates, filled. Raises jinja2.UndefinedError for a gap."""
    with _LOADING:
        template = _make_environment().get_template(name)
    return template.render(context)


def load_templates() -> None:
    """Load Jinja2 and the templates in a thread of their own, while programs run: 60 ms saved."""
    threading.Thread(target=_load_all, name="templates", daemon=True).start()


def _load_all() -> None:
    for path in sorted(_FOLDER.glob("*.j2")):
        with _LOADING:
            _make_environment().get_template(path.name)


def _only_quoted(value: object) -> Quoted:
    if not isinstance(value, Quoted):
        raise TypeError(f"{value!r} reached a template without a serializer")
    return value


def _list_writer(quote: Callable[[str], str]) -> Callable[[Sequence[str]], Quoted]:
    def write(items: Sequence[str]) -> Quoted:
        if not items:
            return Quoted("[ ]")
        body = "".join(f"    {quote(item)},\n" for item in items)
        return Quoted(f"[\n{body}]")

    return write


@cache
def _make_environment() -> jinja2.Environment:
    import jinja2  # 25 ms, only where something is rendered

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        finalize=_only_quoted,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # what is printed is Quoted already; the targets are not HTML
    )
    environment.filters["xl_string"] = lambda value: Quoted(quote_string(value))
    environment.filters["xl_list"] = _list_writer(quote_string)
    environment.filters["py_string"] = lambda value: Quoted(repr(value))
    environment.filters["py_list"] = _list_writer(repr)
    environment.filters["number"] = lambda value: Quoted(str(int(value)))
    environment.filters["word"] = _one_word
    environment.filters["xml_text"] = lambda value: Quoted(escape(value, quote=False))
    environment.filters["xml_attribute"] = _attribute
    return environment


def _attribute(value: str) -> Quoted:
    """An attribute of XML in quotes; xml.sax.saxutils would bring urllib, http and ssl for this."""
    text = escape(value, quote=False).replace('"', "&quot;")
    for char in "\t\n\r":
        text = text.replace(char, f"&#{ord(char)};")
    return Quoted(f'"{text}"')


def _one_word(value: str) -> Quoted:
    """A word for comments: a version, a name, a path without white space."""
    if len(value.split()) != 1 or not value.isprintable():
        raise ValueError(f"{value!r} is not one word")
    return Quoted(value)
