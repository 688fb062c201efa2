"""Mirrors behind TLS: a CA that the host trusts is enough, what is wrong with others is told."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.mirror import http_client
from pipeline.mirror.snapshot import read_snapshot
from tests.host.bad_mirror import MisbehavingMirror
from tests.host.certificates import Authority
from tests.host.mirror_bench import INRELEASE, Bench, name_two

pytestmark = pytest.mark.integration

BAD: list[Any] = [
    pytest.param({"is_signed": False}, "signed by nobody known", id="TLS: self-signed"),
    pytest.param({"starts_days": -9, "ends_days": -1}, "has expired", id="TLS: expired"),
    pytest.param({"starts_days": 1, "ends_days": 9}, "not yet valid", id="TLS: not yet valid"),
    pytest.param({"host": "other.example.org"}, "for another host", id="TLS: another host"),
]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """A CA that this host trusts."""
    made = Authority(tmp_path / "ca")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setattr(http_client, "HOST_CAS", made.file)
    return made


def test_a_mirror_whose_ca_the_host_trusts_is_used(bench: Bench, authority: Authority) -> None:
    with MisbehavingMirror(bench.mirror.root, tls=authority.context()) as mirror:
        assert mirror.url.startswith("https://")
        state = bench.build(mirror=mirror.url)
    assert read_snapshot(state.folder).sources[0].uri == mirror.url


def test_a_ca_that_only_the_environment_names_is_trusted_too(
    bench: Bench, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "HOST_CAS", Path("/nothing"))
    with MisbehavingMirror(bench.mirror.root, tls=authority.context()) as mirror:
        assert "nobody known here" in bench.refuse(mirror=mirror.url).brief
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        assert bench.build(mirror=mirror.url).is_current


@pytest.mark.parametrize(("certificate", "reason"), BAD)
@pytest.mark.fault(place="release", ending="message")
def test_what_is_wrong_with_a_certificate_is_told_once(
    bench: Bench, authority: Authority, certificate: dict[str, Any], reason: str
) -> None:
    with MisbehavingMirror(bench.mirror.root, tls=authority.context(**certificate)) as mirror:
        error = bench.refuse(mirror=mirror.url)
    assert (error.exit_code, reason in error.brief) == (1, True), error.brief
    assert mirror.url in error.brief and "tried" not in error.brief
    assert mirror.requests.total() == 0


@pytest.mark.parametrize(("certificate", "reason"), BAD)
@pytest.mark.fault(place="release", ending="another mirror")
def test_behind_a_bad_certificate_another_mirror_takes_over(
    bench: Bench, authority: Authority, certificate: dict[str, Any], reason: str
) -> None:
    with (
        MisbehavingMirror(bench.mirror.root, tls=authority.context(**certificate)) as bad,
        MisbehavingMirror(bench.mirror.root) as good,
    ):
        bench.mirror = bad
        state = bench.build(mirror=name_two(bench, good))
        assert good.asked(INRELEASE) == 1
    assert read_snapshot(state.folder).sources[0].uri == good.url
    assert reason


@pytest.mark.parametrize(("certificate", "reason"), BAD)
@pytest.mark.fault(place="package", ending="another mirror")
def test_a_certificate_that_goes_bad_after_the_release_file_costs_no_package(
    bench: Bench, authority: Authority, certificate: dict[str, Any], reason: str
) -> None:
    with (
        MisbehavingMirror(bench.mirror.root, tls=authority.context()) as first,
        MisbehavingMirror(bench.mirror.root) as other,
    ):
        bench.mirror = first
        snapshot = read_snapshot(bench.build(mirror=name_two(bench, other)).folder)
    port = int(first.address.rpartition(":")[2])
    hello = snapshot.packages.find("hello", "1.0")
    target = bench.project.output / "cache/debs" / hello.sha256
    with (
        MisbehavingMirror(bench.mirror.root, port, tls=authority.context(**certificate)),
        MisbehavingMirror(bench.mirror.root, int(other.address.rpartition(":")[2])) as again,
    ):
        snapshot.route.fetch(hello.url, target, size=hello.size, sha256=hello.sha256)
        assert again.asked(".deb") == 1
    assert target.stat().st_size == hello.size and reason


@pytest.mark.fault(name="TLS: plain HTTP there", place="release", ending="message")
def test_https_asked_of_a_plain_server_says_so(bench: Bench, authority: Authority) -> None:
    error = bench.refuse(mirror=bench.mirror.url.replace("http:", "https:"))
    assert "does not speak TLS" in error.brief and "http://" in error.hint
    assert authority.file.is_file()
