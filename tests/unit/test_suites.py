"""Facts about releases."""

import json
import re
from pathlib import Path

import pytest

from pipeline.suites import SUITES, nearest_suite
from pipeline.suites.accounts import (
    BUILT,
    NEVER,
    PAGE,
    Account,
    read_accounts,
    read_proven,
    render_page,
)

ALL = sorted(SUITES)


@pytest.mark.parametrize("name", ALL)
def test_a_suite_is_found_under_its_own_name(name: str) -> None:
    assert SUITES[name].name == name


@pytest.mark.parametrize("name", ALL)
def test_a_suite_has_packages_for_each_of_its_inits_and_no_other(name: str) -> None:
    suite = SUITES[name]
    assert set(suite.system_packages) == set(suite.inits)
    assert suite.init_default in suite.inits
    for init in suite.inits:
        packages = suite.base_packages(init)
        assert len(packages) == len(set(packages))
        assert {"openssh-server", "udev", "e2fsprogs"} <= set(packages)


@pytest.mark.parametrize("name", ALL)
def test_file_system_features_are_the_whole_list(name: str) -> None:
    suite = SUITES[name]
    for fs in ("ext2", "ext3", "ext4"):
        features = suite.mke2fs_features(fs).split(",")
        assert features[0] == "none"
        assert not {"orphan_file", "metadata_csum_seed"} & set(features)
    assert ("has_journal" in suite.mke2fs_features("ext2")) is False
    assert suite.default_fs in suite.filesystems


def test_old_file_systems_have_nothing_that_their_kernels_do_not_know() -> None:
    for name in ("etch", "lenny"):
        suite = SUITES[name]
        assert suite.default_fs == "ext3"
        assert not {"64bit", "metadata_csum", "extent"} & set(
            suite.mke2fs_features("ext3").split(",")
        )
        assert suite.inode_size == 128


@pytest.mark.parametrize("name", ALL)
def test_only_archived_suites_use_the_removed_keys_and_ignore_valid_until(name: str) -> None:
    suite = SUITES[name]
    assert ("removed" in suite.keyring) == suite.is_archived
    assert suite.checks_valid_until == (not suite.is_archived)


def test_buster_and_older_are_archived() -> None:
    archived = {name for name in ALL if SUITES[name].is_archived}
    assert archived == {"buster", "stretch", "jessie", "wheezy", "squeeze", "lenny", "etch"}


def test_security_suites_are_named_as_their_archive_names_them() -> None:
    assert SUITES["bookworm"].security_suite == "bookworm-security"
    assert SUITES["lenny"].security_suite == "lenny/updates"
    assert SUITES["sid"].security_suite == ""
    assert SUITES["bookworm"].security_path == "debian-security"
    assert SUITES["noble"].security_path == "ubuntu"


def test_every_derived_release_names_its_own_security_and_updates_suite() -> None:
    for name, suite in SUITES.items():
        for part in (suite.security_suite, suite.updates_suite):
            assert part == "" or re.match(rf"{name}[-/]", part)


def test_network_names_and_tools_follow_the_release() -> None:
    assert SUITES["bookworm"].nic_naming == "enX"
    assert SUITES["bullseye"].nic_naming == "eth"
    assert SUITES["jammy"].nic_naming == "eth"
    assert SUITES["bookworm"].network_tool("systemd") == "networkd"
    assert SUITES["bookworm"].network_tool("sysvinit") == "ifupdown"
    assert SUITES["buster"].network_tool("systemd") == "ifupdown"


def test_the_links_into_usr_are_ours_to_make_in_bookworm_alone() -> None:
    made = {name: SUITES[name].merged_folders("amd64") for name in ALL}
    assert [name for name in ALL if made[name]] == ["bookworm"]
    assert {"bin", "sbin", "lib", "lib64"} <= set(made["bookworm"])
    assert "lib32" not in SUITES["bookworm"].merged_folders("i386")


def test_resolved_is_asked_for_where_it_is_a_package_of_its_own() -> None:
    with_package = {
        name
        for name in ALL
        if "systemd-resolved" in SUITES[name].system_packages.get("systemd", ())
    }
    assert with_package == {"bookworm", "trixie", "forky", "sid", "noble", "resolute"}


def test_password_hashes_follow_the_libc() -> None:
    assert SUITES["bookworm"].password_hash == "yescrypt"
    assert SUITES["buster"].password_hash == "sha512"
    assert SUITES["etch"].password_hash == "md5"
    assert "$y$" not in SUITES["buster"].hash_prefixes


def test_kernels_and_console_of_the_old_xen_kernels() -> None:
    assert SUITES["lenny"].default_kernel("i386") == "linux-image-2.6-xen-686"
    assert SUITES["lenny"].console == "hvc0"
    assert SUITES["etch"].console == "tty1"
    assert SUITES["trixie"].default_kernel("i386") == ""
    assert "libc6-xen" in SUITES["lenny"].base_packages("sysvinit", "i386")
    assert "libc6-xen" not in SUITES["lenny"].base_packages("sysvinit", "amd64")


def test_sshd_learned_ed25519_in_jessie_and_fido_in_bullseye() -> None:
    assert not SUITES["wheezy"].understands_ed25519
    assert SUITES["jessie"].understands_ed25519
    assert not SUITES["buster"].understands_security_keys
    assert SUITES["bullseye"].understands_security_keys


def test_the_nearest_suite_of_a_misspelling() -> None:
    assert nearest_suite("bokworm") == "bookworm"
    assert nearest_suite("zzzz") == ""


def test_the_page_of_releases_is_made_of_what_was_built_and_booted() -> None:
    accounts = read_accounts()
    assert list(accounts) == list(SUITES), f"{BUILT}: python -m tests.suites --write"
    page = render_page(SUITES, accounts, read_proven())
    assert PAGE.read_text() == page, "python -m tests.suites --page"


def test_the_last_proof_that_held_is_the_one_that_counts(tmp_path: Path) -> None:
    proofs = [
        {"suite": "jammy", "verdict": "proven", "proven_at": 86400 * 3, "xen": "4.20"},
        {"suite": "jammy", "verdict": "proven", "proven_at": 86400, "xen": "4.17"},
        {"suite": "focal", "verdict": "failed", "proven_at": 86400, "xen": "4.17"},
        {"suite": "", "verdict": "proven", "proven_at": 86400, "xen": "4.17"},
    ]
    table = tmp_path / "proofs.json"
    table.write_text(json.dumps(proofs))
    assert read_proven(table) == {"jammy": ("1970-01-04", "4.20")}
    assert read_proven(tmp_path / "none") == {}


def test_a_release_that_nobody_built_is_told_with_what_the_mirror_said() -> None:
    built = Account(asked="2026-11-29", built="2026-11-28", kernel="6.1", packages=140)
    accounts = {"bookworm": built, "etch": Account(asked="2026-11-29", answer="not found (404)")}
    page = render_page({name: SUITES[name] for name in ("bookworm", "etch", "sid")}, accounts, {})
    built_rows, _, others = page.partition("## Never built")
    assert "| `bookworm` | Debian 12 | 2026-11-28 |" in built_rows
    assert f"| {NEVER} |" in built_rows  # no proof of it
    assert "| `etch` | 2026-11-29 | not found (404) |" in others
    assert f"| `sid` | {NEVER} |" in others
