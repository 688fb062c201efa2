"""Guest, kernel and Xen: each rule has a guest that breaks it, and the page says the same."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pipeline.spec import Spec
from pipeline.spec.rules import case_of
from pipeline.xen.compatibility import RULES, Case, Level, find_broken

LEVELS: tuple[Level, ...] = ("refused", "stops", "warns")
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
    "has no PVH guests": {"type": "pvh", "xen": "4.9"},
    "no direct boot of a PC": {"type": "hvm", "xen": "4.4"},
    "does not know mtu=": {"mtu": 1400, "xen": "4.15"},
    "on_crash coredump-restart": {"on_crash": "coredump-restart", "xen": "3.2"},
    "came with Xen 3.3": {"boot": "grub", "xen": "3.2"},
    "does not run under Xen 3.4": {"boot": "grub", "xen": "3.4"},
    "PV GRUB cannot unpack": {"type": "pv", "boot": "grub", "kernel": "linux-image-cloud-amd64"},
    "4.4 and later can": {"xen": "4.3"},
    "pygrub cannot read xfs": {"boot": "pygrub", "fs": "xfs"},
}
# what no key of a spec asks for, but a domain can
OF_DOMAINS = ("vlan", "hdtype")
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
    {"suite": "bookworm", "type": "pv"},
]


def texts_of(keys: dict[str, object], host_linux: tuple[int, ...] = ()) -> list[str]:
    spec = Spec.model_validate({"name": "web1", "mirror": "http://m/debian", **keys})
    found = find_broken(case_of(spec, host_linux), *LEVELS)
    return [f"{one.subject}: {one.text} {one.hint}" for one in found]


@pytest.mark.parametrize("words", list(BREAKING))
def test_a_combination_that_does_not_work_is_told(words: str) -> None:
    assert any(words in text for text in texts_of(BREAKING[words])), texts_of(BREAKING[words])


def test_every_rule_has_a_guest_that_breaks_it() -> None:
    found = {text for keys in BREAKING.values() for text in texts_of(dict(keys))}
    for rule in RULES:
        ends = any(text.endswith(rule.hint.partition("}")[2] or rule.hint) for text in found)
        assert ends or rule.key in OF_DOMAINS, rule.text


@pytest.mark.parametrize("key", OF_DOMAINS)
def test_a_key_that_this_xen_would_ignore_is_told(key: str) -> None:
    case = Case(type="hvm", boot="firmware", xen=(4, 6), xl_keys=frozenset({key}))
    assert [one.subject for one in find_broken(case, "refused")] == [key]
    assert not list(find_broken(replace(case, xen=(4, 19)), "refused"))


@pytest.mark.parametrize("keys", WORKING, ids=str)
def test_a_combination_that_works_is_left_alone(keys: dict[str, object]) -> None:
    assert texts_of(keys) == []


def test_the_hosts_own_kernel_is_judged_by_its_version() -> None:
    assert texts_of({"kernel": "host"}, (6, 1, 0)) == []
    assert "kernel too old" in texts_of({"kernel": "host"}, (2, 6, 32))[0]
