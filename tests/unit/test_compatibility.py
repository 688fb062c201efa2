"""Guest, kernel and Xen: each rule has a guest that breaks it, and the page says the same."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.compatibility import PAGE, RULES, find_incompatible, render_page
from pipeline.spec import Spec

FILES = {"kernel": "/boot/vmlinuz-2.6.26-2-xen-686", "initrd": "/boot/initrd.img-2.6.26-2-xen-686"}
BREAKING: dict[str, dict[str, object]] = {
    "no 32-bit PV guests any more": {"suite": "bullseye", "arch": "i386"},
    "has no PAE": {"suite": "wheezy", "kernel": "linux-image-486"},
    "shadow stacks": {"suite": "lenny", **FILES},
    "cannot start as PVH": {"suite": "stretch", "type": "pvh"},
    "kernel too old": {"suite": "buster", **FILES},
    "no longer supports Linux": {"suite": "sid", "kernel": "linux-image-5.4.0-4-amd64"},
    "vsyscalls": {"suite": "wheezy", "kernel": "linux-image-6.1.0-54-amd64"},
    "etch's Xen 3.0": {"suite": "lenny", "xen": "3.0", **FILES},
    "no bzImage": {"suite": "wheezy", "xen": "3.2"},
    "reads no ext4": {"suite": "wheezy", "xen": "3.4", "boot": "pygrub"},
    "no devtmpfs": {"suite": "lenny"},
}
WORKING: list[Mapping[str, object]] = [
    {"suite": "etch", "xen": "3.2", **FILES},
    {
        "suite": "lenny",
        "xen": "3.0",
        "kernel": "/boot/vmlinuz-2.6.18-6-xen-686",
        "initrd": "/boot/initrd.img-2.6.18-6-xen-686",
    },
    {"suite": "squeeze", "xen": "4.0", "arch": "i386"},
    {"suite": "wheezy", "cmdline": "vsyscall=emulate", "kernel": "linux-image-6.1.0-54-amd64"},
    *({"suite": suite} for suite in ("bullseye", "bookworm", "trixie", "sid", "noble")),
    {"suite": "bookworm", "type": "pvh"},
]


def texts_of(keys: dict[str, object], host_linux: tuple[int, ...] = ()) -> list[str]:
    spec = Spec.model_validate({"name": "web1", "mirror": "http://m/debian", **keys})
    return [f"{one.key}: {one.text} {one.hint}" for one in find_incompatible(spec, host_linux)]


@pytest.mark.parametrize("words", list(BREAKING))
def test_a_combination_that_does_not_work_is_told(words: str) -> None:
    assert any(words in text for text in texts_of(BREAKING[words])), texts_of(BREAKING[words])


def test_every_rule_has_a_guest_that_breaks_it() -> None:
    found = {text for keys in BREAKING.values() for text in texts_of(keys)}
    assert len({text.partition(" ")[0] + text[-30:] for text in found}) >= len(RULES) - 1
    for rule in RULES:
        assert any(rule.hint and text.endswith(rule.hint) for text in found), rule.text


@pytest.mark.parametrize("keys", WORKING, ids=str)
def test_a_combination_that_works_is_left_alone(keys: dict[str, object]) -> None:
    assert texts_of(keys) == []


def test_the_hosts_own_kernel_is_judged_by_its_version() -> None:
    assert texts_of({"kernel": "host"}, (6, 1, 0)) == []
    assert "kernel too old" in texts_of({"kernel": "host"}, (2, 6, 32))[0]


def test_the_page_says_what_the_rules_say() -> None:
    assert PAGE.read_text() == render_page(), "python -m pipeline.compatibility --write"
