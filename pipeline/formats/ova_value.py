"""ova.xml of an XVA read: one value of XML-RPC, made by a stranger."""

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, ParseError, XMLParser

from pipeline.errors import VerificationError

Fields = Mapping[str, Any]
_DEPTH = 16


def read_ova(content: bytes) -> list[tuple[str, str, Fields]]:
    """Class, reference and fields of each object. Raises VerificationError."""
    whole = _parse(content)
    version = whole.get("version")
    if not isinstance(version, dict) or text_of(version, "export_vsn") not in ("1", "2"):
        raise VerificationError("ova.xml says no version (export_vsn) that is known: 1, 2")
    objects: list[tuple[str, str, Fields]] = []
    for told in whole.get("objects") or ():
        fields = told.get("snapshot") if isinstance(told, dict) else None
        if not isinstance(fields, dict):
            raise VerificationError("ova.xml has an object without a snapshot of its fields")
        objects.append((text_of(told, "class"), text_of(told, "id"), fields))
    return objects


def text_of(fields: Fields, name: str) -> str:
    """A field as text; "" where there is none."""
    value = fields.get(name, "")
    return value if isinstance(value, str) else ""


def _parse(content: bytes) -> Fields:
    if b"<!" in content:  # a stranger's entities, which grow
        raise VerificationError("ova.xml has a declaration in it")
    parser = XMLParser()
    try:
        parser.feed(content)
        root = parser.close()
    except ParseError as error:
        raise VerificationError(f"ova.xml is no XML: {error}") from error
    value = _value(root, 0)
    if not isinstance(value, dict):
        raise VerificationError("ova.xml is no table")
    return value


def _value(element: Element, depth: int) -> Any:
    """A number stays the text that it is; a boolean is one."""
    if element.tag != "value" or depth > _DEPTH or len(element) > 1:
        raise VerificationError(f"ova.xml: <{element.tag[:40]}> where one value is expected")
    inner = next(iter(element), None)
    if inner is None:
        return element.text or ""
    if inner.tag == "array":
        return [_value(value, depth + 1) for value in inner.iterfind("data/value")]
    if inner.tag == "struct":
        return dict(_member(member, depth + 1) for member in inner.iterfind("member"))
    text = inner.text or ""
    return text.strip() == "1" if inner.tag == "boolean" else text


def _member(member: Element, depth: int) -> tuple[str, Any]:
    name, value = member.find("name"), member.find("value")
    if name is None or value is None:
        raise VerificationError("ova.xml: a member without a name or a value")
    return name.text or "", _value(value, depth)
