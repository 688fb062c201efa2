"""The mirror stage against a signed archive: what is accepted, what each refusal says."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.mirror import keyrings
from pipeline.mirror.snapshot import read_snapshot
from tests.conftest import require
from tests.host.archives import Keys
from tests.host.bad_mirror import Fault, MisbehavingMirror, change, serve
from tests.host.mirror_bench import INRELEASE, Bench

pytestmark = pytest.mark.integration


def test_a_good_mirror_becomes_a_snapshot_with_all_three_suites(
    bench: Bench, good_key: str
) -> None:
    state = bench.build()
    assert state.is_current
    table = bench.snapshot(state)
    assert [entry["suite"] for entry in table["sources"]] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
    ]
    assert table["sources"][0]["signed_by"] == [good_key]
    snapshot = read_snapshot(state.folder)
    hello = snapshot.packages.find("hello")
    assert (hello.version, hello.url.startswith(f"http://{bench.mirror.address}/")) == ("1.1", True)
    assert snapshot.packages.find("hello", "1.0").size > 0


@pytest.mark.fault(name="signature cut off", place="release", ending="message")
def test_a_signature_that_is_cut_off_is_not_taken_for_an_unsigned_file(bench: Bench) -> None:
    bench.mirror.faults[INRELEASE] = change(lambda content: content[:-200])
    assert "damaged" in bench.refuse().brief


def unsigned(content: bytes) -> bytes:
    return content.partition(b"\n\n")[2].partition(b"-----BEGIN PGP SIGNATURE")[0]


def tampered(content: bytes) -> bytes:
    return content.replace(b"Origin: Tests", b"Origin: Fakes")


@pytest.mark.parametrize(
    ("fault", "reason", "advice"),
    [
        (change(unsigned), "InRelease: not signed", "only signed archives"),
        (change(tampered), "does not match: the file was tampered with", "another mirror="),
        (serve(b"<html>welcome</html>"), "InRelease: not signed", "only signed archives"),
    ],
    ids=["unsigned", "tampered", "a web page"],
)
@pytest.mark.fault(place="release", ending="message")
def test_an_inrelease_that_is_not_right_is_refused(
    bench: Bench, fault: Fault, reason: str, advice: str
) -> None:
    bench.mirror.faults[INRELEASE] = fault
    error = bench.refuse()
    assert error.exit_code == 5
    assert reason in error.brief and advice in error.hint
    assert (error.stage, error.guest) == ("mirror", "web1")


@pytest.mark.parametrize(
    ("changes", "reason", "advice"),
    [
        ({"dated_days_ago": 60, "valid_days": 7}, "expired, Valid-Until was", "frozen"),
        ({"dated_days_ago": -3}, "which is in the future", "clock"),
        ({"codename": "trixie", "suite": "testing"}, "this is trixie, not bookworm", "another"),
        (
            {"codename": "bookworm-updates", "suite": "stable-updates"},
            "this is bookworm-updates, not bookworm",
            "another",
        ),
        ({"hash_name": "SHA1"}, "signed with SHA-1", "SHA-256"),
    ],
    ids=["expired", "future", "other suite", "other pocket", "weak hash"],
)
@pytest.mark.fault(place="release", ending="message")
def test_a_release_of_another_time_or_suite_is_refused(
    bench: Bench, changes: dict[str, Any], reason: str, advice: str
) -> None:
    bench.publish(**changes)
    error = bench.refuse()
    assert error.exit_code == 5
    assert reason in error.brief and advice in error.hint


@pytest.mark.fault(name="unknown key", place="release", ending="message")
def test_a_key_that_the_keyring_does_not_hold_is_named(bench: Bench, keys: Keys) -> None:
    stranger = keys.make("stranger")
    bench.publish(signers=(stranger,))
    error = bench.refuse()
    assert error.exit_code == 5
    assert f"unknown key {stranger[-16:]}" in error.brief and "keyring=" in error.hint


@pytest.mark.parametrize("suite", ["bookworm", "buster"])
@pytest.mark.fault(name="revoked key", place="release", ending="message")
def test_a_revoked_key_is_accepted_nowhere(bench: Bench, keys: Keys, suite: str) -> None:
    revoked = keys.make(f"revoked for {suite}")
    names = {"bookworm": "stable", "buster": "oldoldstable"}
    bench.publish(suite, codename=suite, suite=names[suite], signers=(revoked,))
    keys.revoke(revoked)
    keys.export(bench.keyring, revoked)
    error = bench.refuse(suite=suite, updates=False, security=False)
    assert error.exit_code == 5
    assert "the key that signed it was revoked" in error.brief and "newer keyring" in error.hint


@pytest.mark.fault(name="expired signature", place="release", ending="message")
def test_a_signature_that_has_expired_is_refused(bench: Bench, keys: Keys) -> None:
    aged = keys.make("aged", born_days_ago=100)
    keys.export(bench.keyring, aged)
    inrelease = bench.mirror.root / f"debian{INRELEASE}"
    text = unsigned(inrelease.read_bytes()).decode()
    inrelease.write_bytes(keys.sign_for(text, aged, days_ago=20, lives_days=5))
    error = bench.refuse()
    assert (error.exit_code, "its signature has expired" in error.brief) == (5, True), error.brief


def test_one_known_key_among_several_is_enough(bench: Bench, keys: Keys, good_key: str) -> None:
    bench.publish(signers=(keys.make("other"), good_key))
    assert bench.snapshot(bench.build())["sources"][0]["signed_by"] == [good_key]


@pytest.mark.fault(name="expired key", place="release", ending="message")
def test_an_expired_key_does_not_sign_for_a_live_suite(
    bench: Bench, keys: Keys, old_key: str
) -> None:
    keys.export(bench.keyring, old_key)
    bench.publish(signers=(old_key,), signed_days_ago=1000)
    error = bench.refuse()
    assert error.exit_code == 5
    assert "key that signed it has expired" in error.brief and "newer keyring" in error.hint


def test_an_archived_suite_may_be_expired_with_its_key(
    bench: Bench, keys: Keys, old_key: str
) -> None:
    keys.export(bench.keyring, old_key)
    past: dict[str, Any] = {
        "dated_days_ago": 1000,
        "valid_days": 7,
        "signers": (old_key,),
        "signed_days_ago": 1000,
    }
    names = {"codename": "buster", "suite": "oldoldstable"}
    bench.publish("buster", **names, **past, has_by_hash=False)
    bench.publish("buster/updates", "debian-security", **names, **past)
    found = bench.snapshot(bench.build(suite="buster"))["sources"]
    assert [entry["suite"] for entry in found] == ["buster", "buster/updates"]


def test_a_keyring_that_gpgv_cannot_read_is_refused_with_the_command_that_helps(
    bench: Bench,
) -> None:
    bench.keyring.write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    error = bench.refuse()
    assert (error.exit_code, "--dearmor" in error.hint) == (3, True)


def test_a_mirror_without_security_is_used_and_said(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(bench.mirror.root / "debian-security")
    table = bench.snapshot(bench.build())
    assert [entry["role"] for entry in table["sources"]] == ["main", "updates"]
    assert "has no bookworm-security: the guest is built without" in capsys.readouterr().out


@pytest.mark.fault(name="tampered", place="release", ending="message")
def test_security_that_is_there_and_wrong_is_not_left_out(bench: Bench) -> None:
    bench.mirror.faults["/dists/bookworm-security/InRelease"] = change(tampered)
    assert bench.refuse().exit_code == 5


def test_a_component_that_the_suite_lacks_is_named(bench: Bench) -> None:
    error = bench.refuse(components=("main", "contrib"))
    assert "bookworm has no component 'contrib' for amd64" in error.brief


def test_the_short_form_and_a_folder_show_the_same_archive(bench: Bench) -> None:
    by_url = bench.build()
    by_address = bench.build(mirror=bench.mirror.address)
    by_folder = bench.build(mirror=f"file:{bench.mirror.root}/debian")
    with MisbehavingMirror(bench.mirror.root) as other:
        by_other = bench.build(mirror=other.url)
    assert by_address.inputs["sources"] == by_url.inputs["sources"]
    states = (by_url, by_address, by_folder, by_other)
    assert len({state.fingerprint for state in states}) == 4
    assert len({state.identity for state in states}) == 1


def test_looking_again_changes_the_identity_only_when_the_archive_changed(bench: Bench) -> None:
    first = bench.build(snapshot_max_age="0").identity
    assert bench.build(snapshot_max_age="0").identity == first
    bench.archive.add_package("hello", "2.0")
    bench.publish()
    assert bench.build().identity == first
    assert bench.build(snapshot_max_age="0").identity != first


def test_a_failed_look_leaves_the_older_snapshot_as_it_was(bench: Bench) -> None:
    folder = bench.build().folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    bench.mirror.faults[INRELEASE] = change(tampered)
    bench.refuse(snapshot_max_age="0")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert bench.build().folder == folder


def lend(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Ubuntu's archive, and a Debian one that lends its keyring; this machine has none."""
    names = {"codename": "noble", "suite": "noble"}
    bench.archive.add_package("hello", "1.0", "ubuntu")
    bench.publish("noble", "ubuntu", **names)
    path = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    deb = bench.archive.add_package("ubuntu-keyring", "1", files={path: bench.keyring.read_bytes()})
    bench.publish("trixie", codename="trixie", suite="testing")
    monkeypatch.setattr(keyrings, "host_archive", lambda _name: bench.mirror.url)
    monkeypatch.setattr(keyrings, "_LENDER_KEYRING", bench.keyring)
    return deb


UBUNTU = {"suite": "noble", "components": ("main",), "keyring": ""}


def test_ubuntus_keyring_comes_from_a_verified_package(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require(not Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg").exists(), "is installed")
    lend(bench, monkeypatch, tmp_path)
    state = bench.build(**UBUNTU, mirror=f"http://{bench.mirror.address}/ubuntu")
    assert (state.folder / "keyring.gpg").read_bytes() == bench.keyring.read_bytes()
    assert not list(state.folder.glob("lender*"))


@pytest.mark.fault(name="wrong hash", place="package", ending="message")
def test_a_keyring_package_that_is_not_what_was_signed_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require(not Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg").exists(), "is installed")
    deb = lend(bench, monkeypatch, tmp_path)
    deb.write_bytes(deb.read_bytes()[:-1] + b"x")
    error = bench.refuse(**UBUNTU, mirror=f"http://{bench.mirror.address}/ubuntu")
    assert (error.exit_code, "wrong bytes" in error.brief) == (5, True)
