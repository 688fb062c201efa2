import gzip
import random

import lz4.frame
import pytest

from pipeline.artifact.sums import read_sums
from pipeline.check.boot_files import judge_files
from pipeline.check.facts import compare, judge
from pipeline.check.file_systems import _is_fault
from pipeline.check.network import read_interfaces, read_sections
from pipeline.check.sshd import find_openings
from pipeline.check.system import find_settings, read_suites
from pipeline.errors import Finding
from pipeline.kernel.cpio import Archive, compress
from tests.unit.check_facts import make_tree
from tests.unit.test_kernel_image import NOTES, make_elf

KEYS_ONLY = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
NEW, OLD = (9, 2), (5, 1)


def test_links_are_followed_inside_the_guest_and_never_outside() -> None:
    tree = make_tree(
        {
            "/etc/localtime": "-> /usr/share/zoneinfo/UTC",
            "/usr/share/zoneinfo/UTC": "zone",
            "/etc/up": "-> ../../../../usr/share/zoneinfo/UTC",
            "/etc/loop": "-> loop",
            "/folder": "-> /usr/share",
        }
    )
    assert tree.text("/etc/localtime") == tree.text("/etc/up") == "zone"
    assert tree.text("/folder/zoneinfo/UTC") == "zone"
    assert tree.text("/etc/loop") == ""
    assert not tree.has("/etc/nothing")
    assert tree.names("/folder/zoneinfo") == ["UTC"]


def test_a_star_stays_within_one_name() -> None:
    tree = make_tree({"/a/b": "", "/a/c/d": "", "/a/bb": ""})
    assert tree.glob("/a/b*") == ["/a/b", "/a/bb"]
    assert tree.glob("/a/*") == ["/a/b", "/a/bb"]


def test_a_check_holds_or_shows_what_is_wrong() -> None:
    hint = "build it again"
    wrong = compare("A12", "timezone", expected="Etc/UTC", seen="", hint=hint)
    assert wrong == Finding("error", "timezone", hint=hint, expected="Etc/UTC", code="A12")
    assert compare("A12", "timezone", expected="Etc/UTC", seen="Etc/UTC").level == "ok"
    assert judge("B4", "policy-rc.d", [], ok="gone").seen == "gone"
    assert judge("B3", "UUID", ["odd"], ok="odd").level == "error"
    assert judge("B3", "features", ["lacks a", "has b"], ok="2").seen == "lacks a; has b"


def test_sshd_with_keys_only_has_no_openings() -> None:
    assert find_openings(make_tree({"/etc/ssh/sshd_config": KEYS_ONLY}), NEW) == []


def test_passwords_are_the_default_of_sshd() -> None:
    assert find_openings(make_tree({}), NEW) == [
        "passwordauthentication yes",
        "kbdinteractiveauthentication yes",
    ]


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        ("PermitRootLogin yes", "permitrootlogin yes"),
        ('AuthorizedKeysFile "/etc/keys"', "authorizedkeysfile /etc/keys"),
        ("TrustedUserCAKeys /etc/ca", "trustedusercakeys /etc/ca"),
        ("HostbasedAuthentication=yes", "hostbasedauthentication yes"),
        ("Match User bob\n PermitRootLogin yes", "Match User bob: permitrootlogin yes"),
    ],
)
def test_each_setting_that_lets_others_in_is_named(text: str, opening: str) -> None:
    tree = make_tree({"/etc/ssh/sshd_config": f"{KEYS_ONLY}{text}\n"})
    assert find_openings(tree, NEW) == [opening]


def test_the_first_value_counts_included_files_too() -> None:
    files = {
        "/etc/ssh/sshd_config": "Include sshd_config.d/*.conf\nPasswordAuthentication yes\n",
        "/etc/ssh/sshd_config.d/10-a.conf": f"{KEYS_ONLY}Match User bob\n",
        "/etc/ssh/sshd_config.d/20-b.conf": "PermitRootLogin yes\n",
    }
    assert find_openings(make_tree(files), NEW) == ["permitrootlogin yes"]


def test_an_old_sshd_lets_root_in_unless_it_is_told_not_to() -> None:
    old = "PasswordAuthentication no\nChallengeResponseAuthentication no\n"
    tree = make_tree({"/etc/ssh/sshd_config": old})
    assert find_openings(tree, OLD) == ["permitrootlogin yes"]
    tree = make_tree({"/etc/ssh/sshd_config": f"{old}PermitRootLogin without-password\n"})
    assert find_openings(tree, OLD) == []


def test_suites_are_read_from_both_forms_of_sources() -> None:
    tree = make_tree(
        {
            "/etc/apt/sources.list": "# deb http://x old main\ndeb [trusted=yes] http://x a main\n",
            "/etc/apt/sources.list.d/x.list": "deb-src http://x/ b main\n",
            "/etc/apt/sources.list.d/x.sources": "Types: deb\nSuites: c d\n\nSuites: a\n",
        }
    )
    assert read_suites(tree) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("path", "text", "is_found"),
    [
        ("/etc/apt/apt.conf.d/9", 'Acquire::http::Proxy "http://10.0.0.1:3142";', True),
        ("/etc/apt/apt.conf", 'Acquire {\n  http {\n    Proxy "x";\n  };\n};', True),
        ("/etc/apt/apt.conf.d/9", "// Acquire::http::Proxy is not set", False),
        ("/etc/environment", "http_proxy=http://10.0.0.1:3142", True),
        ("/etc/apt/auth.conf.d/a", "machine x login y password z", True),
        ("/etc/apt/sources.list", "deb http://me:secret@mirror/debian a main", True),
        ("/etc/apt/sources.list", "deb http://mirror/debian a main", False),
    ],
)
def test_what_only_the_builders_apt_needs_is_found(path: str, text: str, is_found: bool) -> None:
    assert find_settings(make_tree({path: text})) == ([path] if is_found else [])


def test_interfaces_are_read_stanza_by_stanza() -> None:
    text = "auto lo eth0\niface eth0 inet static\n    address 10.0.0.2\niface eth0 inet6 auto\n"
    stanzas, automatic = read_interfaces(text)
    assert automatic == {"lo", "eth0"}
    assert stanzas["eth0"][0] == {"family": "inet", "method": "static", "address": "10.0.0.2"}
    assert stanzas["eth0"][1]["family"] == "inet6"


def test_unit_files_keep_every_value_of_a_key() -> None:
    text = "[Match]\nName=a b\n# x=y\n[Network]\nDNS=1\nDNS=2\n"
    assert read_sections(text)["Network"] == [("DNS", "1"), ("DNS", "2")]


def test_sums_are_read_in_the_form_of_sha256sum() -> None:
    line = f"{'a' * 64}  disk.img\n"
    assert read_sums(f"{line}no sum\n{'b' * 64}  ../etc/x\n") == {"disk.img": "a" * 64}


def test_what_e2fsck_says_of_a_clean_file_system_is_no_fault() -> None:
    clean = ["e2fsck 1.47.0 (5-Feb-2023)", "Pass 1: Checking inodes, blocks, and sizes", ""]
    assert not any(_is_fault(line) for line in [*clean, "root: 13264/472064 files (0.1% x), 1/2 b"])
    assert _is_fault("Inode 106 ref count is 7, should be 1.  Fix? no")


def test_a_kernel_that_is_none_is_a_fault_and_no_traceback() -> None:
    assert "neither a bzImage" in judge_files(b"x" * 2048, b"").faults[0]


def test_a_kernel_or_an_initrd_with_flipped_bytes_is_told_or_read() -> None:
    archive = Archive()
    archive.add_file("init", b"#!/bin/sh\n", mode=0o755)
    archive.add_file("lib/xen_blkfront.ko", b"x" * 50, mode=0o644)
    initrds = [archive.pack(), compress(archive.pack()), archive.pack() * 3]
    elf = make_elf(NOTES)
    kernels = [elf, gzip.compress(elf), lz4.frame.compress(elf)]
    for seed in range(3000):
        chance = random.Random(seed)
        spoiled = []
        for content in (chance.choice(kernels), chance.choice(initrds)):
            changed = bytearray(content)
            for _ in range(1 + seed % 5):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            spoiled.append(
                bytes(changed[: chance.randrange(len(changed))] if seed % 7 == 0 else changed)
            )
        found = judge_files(spoiled[0], spoiled[1])
        assert all("\n" not in fault for fault in found.faults)
