"""Certificates of a fleet: made, found, refused."""

import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentFault, PipelineError, UsageError, VerificationError
from pipeline.project import Project
from pipeline.walls.certificates import (
    PARTY_DAYS,
    Party,
    check_certificate,
    find_party,
    make_authority,
    make_party,
    name_of,
)

NOW = datetime.now(UTC)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    folder = Project(tmp_path, tmp_path / "output", tmp_path / "guests").fleet
    assert make_authority(folder, NOW)
    make_party(folder, "build1", ["10.0.0.5", "build1.example.org"], NOW)
    return folder


def shake_hands(server: Party, client: Party, place: str) -> None:
    """Both ends of mutual TLS, in memory; raises ssl.SSLError."""
    ends = []
    for party, side in ((server, ssl.PROTOCOL_TLS_SERVER), (client, ssl.PROTOCOL_TLS_CLIENT)):
        context = ssl.SSLContext(side)
        context.load_verify_locations(party.authority)
        context.load_cert_chain(party.certificate, party.key)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        ends.append(context)
    down, up = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = ends[0].wrap_bio(up, down, server_side=True)
    here = ends[1].wrap_bio(down, up, server_hostname=place)
    for _ in range(4):
        for end in (here, there):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    there.do_handshake()


def test_both_ends_of_tls_accept_one_another(fleet: Path) -> None:
    make_party(fleet, "build2", [], NOW)
    for place in ("10.0.0.5", "build1.example.org", "build1"):
        shake_hands(Party(fleet, "build1"), Party(fleet, "build2"), place)


def test_another_place_and_another_authority_are_refused_by_tls(
    fleet: Path, tmp_path: Path
) -> None:
    make_party(fleet, "build2", [], NOW)
    with pytest.raises(ssl.SSLError, match="mismatch"):
        shake_hands(Party(fleet, "build1"), Party(fleet, "build2"), "10.0.0.6")
    other = tmp_path / "other"
    make_authority(other, NOW)
    stranger = make_party(other, "build2", [], NOW)
    shutil.copy(fleet / "ca.pem", other / "ca.pem")
    with pytest.raises(ssl.SSLError):
        shake_hands(Party(fleet, "build1"), stranger, "build1")
    with pytest.raises(VerificationError, match="not by this fleet's authority"):
        stranger.require_valid(NOW)


def test_keys_are_private_and_nothing_is_overwritten(fleet: Path) -> None:
    party = find_party(fleet)
    assert party.name == "build1"
    assert stat.S_IMODE(fleet.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in fleet.glob("*-key.pem")} == {0o600}
    before = party.key.read_bytes()
    assert not make_authority(fleet, NOW)
    with pytest.raises(UsageError, match="already"):
        make_party(fleet, "build1", [], NOW)
    assert party.key.read_bytes() == before
    make_party(fleet, "build1", [], NOW, renew=True)
    assert party.key.read_bytes() != before
    party.require_valid(NOW)
    party.key.chmod(0o640)
    with pytest.raises(EnvironmentFault, match="other users may read"):
        party.load_key()


@pytest.mark.parametrize(
    ("days", "word"), [(PARTY_DAYS + 1, "has expired"), (-2, "is not valid yet")]
)
def test_what_is_not_valid_now_is_refused_with_its_dates(fleet: Path, days: int, word: str) -> None:
    with pytest.raises(VerificationError, match=f"build1 {word}"):
        find_party(fleet).require_valid(NOW + timedelta(days=days))


def test_whose_folder_it_is(fleet: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no certificates"):
        find_party(tmp_path)
    with pytest.raises(UsageError, match="no certificate of build9"):
        find_party(fleet, "build9")
    make_party(fleet, "build2", [], NOW)
    with pytest.raises(UsageError, match="build1, build2"):
        find_party(fleet)
    assert find_party(fleet, "build2").name == "build2"


@pytest.mark.parametrize("name", ["", "../x", "ca", "ca-key", "a b", "-x", "x" * 64])
def test_a_party_has_a_name_that_is_a_file(fleet: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name of a party"):
        make_party(fleet, name, [], NOW)


def test_a_half_authority_is_not_completed(fleet: Path) -> None:
    (fleet / "ca-key.pem").unlink()
    with pytest.raises(UsageError, match="half an authority"):
        make_authority(fleet, NOW)
    with pytest.raises(UsageError, match="no such file"):
        make_party(fleet, "build2", [], NOW)


def test_keys_of_two_parties_are_not_mixed(fleet: Path) -> None:
    other = make_party(fleet, "build2", [], NOW)
    shutil.copy(other.key, fleet / "build1-key.pem")
    with pytest.raises(UsageError, match="not the key of"):
        Party(fleet, "build1").require_valid(NOW)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate(fleet: Path, content: bytes) -> None:
    with pytest.raises(PipelineError, match="is none"):
        check_certificate(content, (fleet / "ca.pem").read_bytes(), NOW)
    (fleet / "build1-key.pem").write_bytes(content)
    with pytest.raises(UsageError, match="no key"):
        find_party(fleet).load_key()


def test_a_signature_is_checked_by_the_certificate(fleet: Path) -> None:
    party = find_party(fleet)
    authority = (fleet / "ca.pem").read_bytes()
    certificate = check_certificate(party.certificate.read_bytes(), authority, NOW)
    assert name_of(certificate) == "build1"
    key = certificate.public_key()
    assert key == party.load_key().public_key()
