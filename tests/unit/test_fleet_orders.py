"""What travels to a worker, and what cannot."""

import base64
import gzip
import json
from pathlib import Path

import pytest

from pipeline.errors import UsageError, VerificationError, WrongValueError
from pipeline.fleet.address import check_workers, count_local, read_address
from pipeline.fleet.orders import MOST_SITE_BYTES, find_tie, pack_site, unpack_site, write_order
from pipeline.fleet.toolchain import compare_toolchains
from pipeline.project import Project
from pipeline.spec import Spec

MIRROR = {"mirror": "http://mirror.lan/debian"}


@pytest.fixture
def site(tmp_path: Path) -> Project:
    (tmp_path / "elements/own/install.d").mkdir(parents=True)
    script = tmp_path / "elements/own/install.d/50-own"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (tmp_path / "elements/own/README.rst").write_text("own\n")
    (tmp_path / "elements/own/link").symlink_to("README.rst")
    (tmp_path / "mirrors").mkdir()
    (tmp_path / "mirrors/lan.toml").write_text('url = "http://mirror.lan/debian"\n')
    return Project(tmp_path, tmp_path / "output", tmp_path / "guests", tmp_path)


def spec(**values: object) -> Spec:
    return Spec.model_validate({"name": "web1", **MIRROR, **values})


def test_a_site_arrives_as_it_is(site: Project, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    packed = pack_site(site)
    unpack_site(packed, there)
    script = there / "elements/own/install.d/50-own"
    assert (script.read_text(), script.stat().st_mode & 0o777) == ("#!/bin/sh\n", 0o755)
    assert (there / "elements/own/README.rst").stat().st_mode & 0o777 == 0o644
    assert (there / "elements/own/link").readlink() == Path("README.rst")
    assert (there / "mirrors/lan.toml").is_file()
    assert pack_site(site) == packed, "equal files, equal orders"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "elements/../../x"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    file = {name: {"content": "", "runs": False}}
    packed = base64.b64encode(gzip.compress(json.dumps(file).encode())).decode()
    with pytest.raises(VerificationError, match="leads out"):
        unpack_site(packed, tmp_path)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    files = {
        "elements/a": {"link": str(tmp_path / "outside")},
        "elements/a/x": {"content": "", "runs": False},
    }
    packed = base64.b64encode(gzip.compress(json.dumps(files).encode())).decode()
    with pytest.raises(FileExistsError):
        unpack_site(packed, tmp_path / "there")
    assert not (tmp_path / "outside").exists()


def test_a_site_that_is_too_large_is_refused(site: Project) -> None:
    noise = b"".join(n.to_bytes(8, "big") * 3 for n in range(MOST_SITE_BYTES // 4))
    (site.root / "elements/own/large").write_bytes(noise)
    with pytest.raises(UsageError, match="MiB when packed"):
        pack_site(site)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, ""),
        ({"mirror": "lan"}, ""),
        ({"elements_path": ["/srv/elements"]}, "elements_path"),
        ({"mirror": "file:/srv/mirror"}, "a folder of this machine"),
        ({"mirror": "proxy"}, "a program of this machine"),
        ({"kernel": "/boot/vmlinuz-6.1"}, "a file of this machine"),
        ({"keyring": "/srv/ring.gpg"}, "keyring"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_who_can_be_built_elsewhere(site: Project, values: dict[str, object], why: str) -> None:
    tie = find_tie(spec(**values), site)
    assert bool(tie) == bool(why)
    assert why in tie


def test_no_secret_is_in_an_order() -> None:
    secret = "$y$j9T$abcdefghijklmnop$" + "a" * 43
    guest = spec(root_password_hash=secret)
    order = write_order(guest, "base", {})
    assert secret not in json.dumps(order)
    again = Spec.model_validate(order["spec"])
    assert again.model_copy(update={"root_password_hash": secret}) == guest


@pytest.mark.parametrize("text", ["tls://build1", "tls://[::1]:1", "tcp://127.0.0.1:9", "local:2"])
def test_what_workers_may_be(text: str) -> None:
    assert check_workers(text) == text
    assert count_local(text) == (2 if text == "local:2" else 0)


def test_without_tls_no_other_machine_is_reached() -> None:
    with pytest.raises(WrongValueError, match="without TLS") as refused:
        read_address("tcp://build1:8786")
    assert "tls://build1:8786" in refused.value.hint
    assert str(read_address("tls://[fe80::1]")) == "tls://[fe80::1]:8786"


def test_a_difference_of_tools_is_named() -> None:
    here = {"program": "1", "e2fsprogs": "1.47.0"}
    assert not compare_toolchains(here, dict(here))
    assert compare_toolchains({"program": "1"}, here) == "e2fsprogs none, here 1.47.0"
