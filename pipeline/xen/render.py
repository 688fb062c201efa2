"""Texts of a domain for xl, xm and libvirt: Jinja2's templates, filled with what those modules say.

One rule is added to Jinja2: no value reaches the text without a serializer. The templates are
compiled when this module is imported (60 ms), which only what renders does.
"""

from collections.abc import Callable, Sequence
from html import escape
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined

from pipeline.xen import libvirt, xl, xm
from pipeline.xen.cfg_syntax import Quoted, quote_string
from pipeline.xen.domain import Domain


def render_xl(domain: Domain, *, xen: str = "4.17") -> str:
    """The text of an xl.cfg for this version of Xen. Raises Unsupported."""
    return XL.render(xl.fields(domain, xen=xen))


def render_xm(domain: Domain, *, xen: str = "3.2") -> str:
    """The text for xm of this version of Xen (3.0 to 4.4). Raises Unsupported."""
    return _XM.render(xm.fields(domain, xen=xen))


def render_libvirt(domain: Domain, *, xen: str = "4.17") -> str:
    """The XML that `virsh define` takes. Raises Unsupported."""
    return _LIBVIRT.render(libvirt.fields(domain, xen=xen))


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


def _make_environment() -> Environment:
    folder = resources.files("pipeline.xen") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
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


_ENVIRONMENT = _make_environment()
XL, _XM, _LIBVIRT = map(_ENVIRONMENT.get_template, ("xl.cfg.j2", "xm.cfg.j2", "libvirt.xml.j2"))
