"""dom0.toml: what it may say, that every mistake has its key, and the first one of a host."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.dom0.setup import host_draft
from pipeline.dom0.setup.dom0_file import merge_settings, read_dom0_file
from pipeline.dom0.setup.host_settings import (
    Boot,
    Bridge,
    Guests,
    HostSettings,
    Lvm,
    Migration,
    Nat,
)
from pipeline.errors import SpecError, UsageError
from tests.unit.test_docs_commands import ROOT

PAGE = ROOT / "docs/reference/dom0-toml.md"
WRONG = {
    "[brigde.br0]": ("brigde", "no such key", "did you mean 'bridge'?"),
    "[bridge.br0]\nport = []": ("bridge.br0.port", "no such key", "did you mean 'ports'?"),
    '[bridge.br0]\nports = "eth0"': ("bridge.br0.ports", "is not a list", "write it as"),
    '[bridge.br0]\nports = ["a b"]': ("bridge.br0.ports.0", "no network device", "eth0"),
    '[bridge."a/b"]': ("bridge.a/b", "no network device", "eth0"),
    "[bridge.br0]\ndhcp = 1": ("bridge.br0.dhcp", "neither true nor false", "write true"),
    "[nat.br0]": ("nat.br0.address", "is missing", "add address"),
    '[nat.br0]\naddress = "10.0.0.1/24"\nout = "x y"': ("nat.br0.out", "no network device", ""),
    '[boot]\nserial = "com3"': ("boot.serial", "not one of com1, com2", ""),
    '[boot]\ndom0_mem = "1X"': ("boot.dom0_mem", "not a size", "4G"),
    'network = "netplan"': ("network", "not one of ifupdown, networkd", ""),
    '[migration]\nhosts = ["a b"]': ("migration.hosts.0", "not a host name", ""),
    "[boot": ("", "not TOML", ""),
}


def write(folder: Path, text: str) -> Path:
    path = folder / "dom0.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.splitlines()[-1])
def test_a_mistake_is_named_with_its_key(tmp_path: Path, text: str) -> None:
    subject, message, hint = WRONG[text]
    with pytest.raises(SpecError) as caught:
        read_dom0_file(write(tmp_path, text))
    (problem,) = caught.value.problems
    assert problem.subject == subject
    assert message in problem.message
    assert hint in problem.hint
    assert problem.source == f"{tmp_path.name}/dom0.toml"


def test_without_a_file_the_way_to_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there") as caught:
        read_dom0_file(tmp_path / "dom0.toml")
    assert "create=yes" in caught.value.hint


def test_settings_are_added_to_those_that_are_there() -> None:
    settings = HostSettings.model_validate({"boot": {"dom0_max_vcpus": 2}})
    merged = merge_settings(settings, {"boot": {"dom0_mem": "1G"}, "lvm": {"groups": ["VG0"]}})
    assert merged.boot is not None
    assert (merged.boot.dom0_mem, merged.boot.dom0_max_vcpus) == ("1G", 2)
    with pytest.raises(SpecError, match="boot.dom0_mem"):
        merge_settings(settings, {"boot": {"dom0_mem": "x"}})


def test_the_page_has_every_key() -> None:
    tables: list[type[BaseModel]] = [HostSettings, Bridge, Nat, Boot, Guests, Lvm, Migration]
    keys = {key for table in tables for key in table.model_fields}
    page = PAGE.read_text()
    written = set(re.findall(r"^\| `([a-z0-9_]+)` \|", page, re.MULTILINE))
    written |= set(re.findall(r"^## `\[([a-z]+)", page, re.MULTILINE))
    assert keys == written


def test_the_pages_example_is_a_right_file(tmp_path: Path) -> None:
    lines = [line[4:] for line in PAGE.read_text().splitlines() if line.startswith("    ")]
    assert read_dom0_file(write(tmp_path, "\n".join(lines))).bridge["br-xen"].ports == ("eth0",)


IP: dict[str, dict[str, list[dict[str, object]]]] = {
    "static": {
        "-4 route": [{"dst": "default", "dev": "eth0", "gateway": "192.168.1.1"}],
        "address": [
            {"addr_info": [{}, {"family": "inet", "local": "192.168.1.5", "prefixlen": 24}]}
        ],
    },
    "dhcp": {
        "-4 route": [{"dev": "eth0", "gateway": "192.168.1.1", "protocol": "dhcp"}],
        "address": [
            {"addr_info": [{"family": "inet", "local": "1.2.3.4", "prefixlen": 9, "dynamic": True}]}
        ],
    },
    "nothing": {},
}


@pytest.mark.parametrize("kind", IP)
def test_the_first_file_is_what_the_host_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def ask(*words: str) -> list[dict[str, object]]:
        return next((IP[kind][key] for key in IP[kind] if " ".join(words).startswith(key)), [])

    monkeypatch.setattr(host_draft, "_ask", ask)
    settings = read_dom0_file(write(tmp_path, host_draft.draft_dom0_file(tmp_path)))
    if kind == "nothing":
        assert settings == HostSettings()
        return
    bridge = settings.bridge["br-xen"]
    assert bridge.ports == ("eth0",)
    assert bridge.dhcp == (kind == "dhcp")
    assert bridge.gateway == ("192.168.1.1" if kind == "static" else "")
    assert settings.boot is None


def test_every_comment_of_the_first_file_is_a_right_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_draft, "_ask", lambda *_words: [])
    text = host_draft.draft_dom0_file(tmp_path)
    lines = re.findall(r"^# ((?:\[[a-z]|[a-z0-9_]+ = ).*)$", text, re.MULTILINE)
    settings = read_dom0_file(write(tmp_path, "\n".join(lines)))
    assert settings.boot is not None
    assert settings.nat
    assert settings.migration is not None
