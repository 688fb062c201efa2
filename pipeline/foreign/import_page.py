"""docs/reference/import.md: what becomes of each key, made of the tables that decide it.

`python -m pipeline.foreign.import_page --write` writes it again.
"""

import sys
from collections.abc import Iterator, Mapping

from pipeline.foreign.import_elements import ASPECTS, CARD_ASPECTS, ELEMENTS
from pipeline.foreign.import_keys import DEFAULTS, KEYS, SPEC_KEYS, XL_ASPECTS, XM_ASPECTS, Answer
from pipeline.spec.schema import fill_item, refresh_documents

_PAGE = """\
# Keys of xl, xm and libvirt

What `doit import` makes of each key ([how to](../how-to/import.md)). An outcome is one of four:

| outcome | meaning |
|---|---|
| taken | it is a key of the spec now |
| not needed | a build does it anyway, or it did nothing where it stood |
| cannot be said | a spec has no word for it; the reason, and what does it instead |
| added | the file does not say it, a spec must |

A key that no toolstack knows is *not needed*: it did nothing. The report says what it is like.

This page is generated: `python -m pipeline.foreign.import_page --write` writes it again.
"""
_VIF = {
    "mac": "mac",
    "bridge": "bridge; without it that of guests/defaults.toml, else br-xen",
    "vifname": "vifname",
    "rate": "rate",
    "mtu": "mtu",
    "model": "model, of an HVM guest",
    "ip": "address, where netmask= or the kernel's ip= gives the netmask",
    "vlan": "cannot be said: a bridge for each of them does",
    "script": "cannot be said, but for vif-bridge: routed cards are the host's",
    "backend": "cannot be said: a card's other end is dom0",
    "type": "not needed",
}


def render_page() -> str:
    """docs/reference/import.md."""
    lines = [
        _PAGE,
        "## xl and xm: what is taken",
        "",
        "| key | of | key of the spec |",
        "|---|---|---|",
    ]
    for key in sorted({*XL_ASPECTS, *XM_ASPECTS}):
        programs = [
            name for name, known in (("xl", XL_ASPECTS), ("xm", XM_ASPECTS)) if key in known
        ]
        aspect = XL_ASPECTS.get(key) or XM_ASPECTS[key]
        lines.append(f"| `{key}` | {', '.join(programs)} | {SPEC_KEYS.get(aspect, aspect)} |")
    lines += ["", "The network of xend, which xl does not read:", ""]
    lines += ["| key | key of the spec |", "|---|---|"]
    lines += [f"| `{key}` | {meant} |" for key, meant in _NETWORK.items()]
    lines += ["", "## In a `vif`", "", "| key | key of the spec |", "|---|---|"]
    lines += [f"| `{key}` | {meant} |" for key, meant in _VIF.items()]
    lines += ["", "## xl and xm: the others", "", *_list_answers(KEYS)]
    lines += ["", "These values are what holds anyway, and *not needed*:", ""]
    pairs = [f"`{key}={value}`" for key, values in DEFAULTS.items() for value in values if value]
    lines += [fill_item("- " + ", ".join(sorted(pairs)))]
    lines += ["", "## Elements of libvirt's XML: what is taken", ""]
    lines += ["| element | key of the spec |", "|---|---|"]
    amounts = {"memory": "maxmem", "currentMemory": "memory", "vcpu": "maxvcpus; current= vcpus"}
    devices = {f"devices/interface/{tag}": aspect for tag, aspect in CARD_ASPECTS.items()}
    for path, aspect in {**ASPECTS, **amounts, "devices/disk": "disk", **devices}.items():
        lines.append(f"| `{path}` | {SPEC_KEYS.get(aspect, aspect)} |")
    lines += ["", "## Elements of libvirt's XML: the others", "", *_list_answers(ELEMENTS)]
    return "\n".join(lines) + "\n"


_NETWORK = {
    "dhcp": "dhcp",
    "ip": "address, with netmask",
    "netmask": "netmask",
    "gateway": "gateway",
    "hostname": "hostname",
}


def _list_answers(answers: Mapping[str, Answer]) -> Iterator[str]:
    """An item for each answer, with all the keys that have it."""
    for answer in dict.fromkeys(answers.values()):
        keys = ", ".join(f"`{key}`" for key, own in answers.items() if own == answer)
        hint = f" Instead: {answer.hint}." if answer.hint else ""
        yield fill_item(f"- {keys}: *{answer.outcome}*, {answer.text}.{hint}")


def documents() -> dict[str, str]:
    """The generated page, by its name in docs/."""
    return {"reference/import.md": render_page()}


if __name__ == "__main__":
    sys.exit(refresh_documents(documents(), sys.argv[1:]))
