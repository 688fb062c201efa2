"""What a spec cannot ask of a tree that was adopted: it is as it came."""

from collections.abc import Iterator

from pipeline.errors import Finding
from pipeline.spec.model import Spec

_OTHERS = ("adopted",)
_AS_IT_CAME = {
    "packages": "its packages are those that it came with",
    "elements": "elements change a tree that is made of packages",
    "documentation": "its files are those that it came with",
    "timezone": "its time zone is the one that it came with",
    "locale": "its locale is the one that it came with",
    "debconf_priority": "its debconf, if it has one, is as it came",
    "replicated": "DRBD's tools are a package",
    "partitions": "its tree is written into one file system",
}


def check_adopted(spec: Spec) -> Iterator[Finding]:
    """What cannot be asked for of a tree that was adopted."""
    if not spec.adopted:
        return
    usual = {"locale": spec.suite_facts.default_locale}
    for key, why in _AS_IT_CAME.items():
        if getattr(spec, key) != usual.get(key, Spec.model_fields[key].default):
            yield Finding(
                "error", key, f"an adopted guest: {why}", f"leave {key} out", others=_OTHERS
            )
    if spec.boot in ("pygrub", "firmware"):
        message = f"an adopted guest is not started by {spec.boot}"
        yield Finding("error", "boot", message, "write boot = 'grub' or 'direct'", others=_OTHERS)
