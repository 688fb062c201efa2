"""Several mirrors: the next one takes over, what was fetched stays, an old state is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.mirror import credentials, fetch, http_client
from pipeline.mirror.snapshot import read_snapshot
from tests.host.bad_mirror import (
    Fault,
    MisbehavingMirror,
    change,
    cut_short,
    drip,
    hang,
    redirect,
    serve,
    status,
)
from tests.host.conftest import SHORT
from tests.host.mirror_bench import INRELEASE, SECRET, Bench, name_two

pytestmark = pytest.mark.integration

FAULTS = [
    pytest.param(status(404), id="404"),
    pytest.param(status(500), id="500"),
    pytest.param(status(403), id="403"),
    pytest.param(hang, id="hang"),
    pytest.param(drip, id="slow drip"),
    pytest.param(cut_short, id="truncated"),
    pytest.param(redirect(), id="redirect loop"),
    pytest.param(serve(b"<html>log in</html>"), id="a web page"),
]
OF_RELEASES = [
    *FAULTS,
    pytest.param(change(lambda text: text.replace(b"Tests", b"Fakes")), id="tampered"),
]
OF_PACKAGES = [
    *FAULTS,
    pytest.param(change(lambda content: content + b"x"), id="wrong size"),
    pytest.param(change(lambda content: content[:-1] + b"\0"), id="wrong hash"),
]


@pytest.fixture(autouse=True)
def impatient(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "BOUNDS", replace(SHORT, slow_after_s=0.3))


@pytest.mark.parametrize("fault", OF_RELEASES)
@pytest.mark.fault(place="release", ending="another mirror")
def test_a_release_file_in_trouble_is_taken_from_the_next_mirror(
    bench: Bench, fault: Fault
) -> None:
    with MisbehavingMirror(bench.mirror.root) as other:
        bench.mirror.faults[INRELEASE] = fault
        state = bench.build(mirror=name_two(bench, other))
    snapshot = read_snapshot(state.folder)
    assert snapshot.sources[0].uri == other.url
    assert snapshot.packages.find("hello").version == "1.1"


@pytest.mark.parametrize("fault", OF_PACKAGES)
@pytest.mark.fault(place="package", ending="another mirror")
def test_a_package_in_trouble_is_taken_from_the_next_mirror_and_kept(
    bench: Bench, fault: Fault
) -> None:
    with MisbehavingMirror(bench.mirror.root) as other:
        state = bench.build(mirror=name_two(bench, other))
        snapshot = read_snapshot(state.folder)
        hello = snapshot.packages.find("hello", "1.0")
        bench.mirror.faults[".deb"] = fault
        target = bench.project.output / "cache/debs" / hello.sha256
        route = snapshot.route
        for _ in range(2):
            route.fetch(hello.url, target, size=hello.size, sha256=hello.sha256)
        assert other.asked(".deb") == 1
        assert target.stat().st_size == hello.size
        assert not list(target.parent.glob(".*"))


@pytest.mark.fault(name="500 for every package", place="package", ending="another mirror")
def test_a_mirror_that_died_is_asked_once_and_not_for_every_package(bench: Bench) -> None:
    with MisbehavingMirror(bench.mirror.root) as other:
        snapshot = read_snapshot(bench.build(mirror=name_two(bench, other)).folder)
        bench.mirror.faults[".deb"] = status(500)
        route, folder = snapshot.route, bench.project.output / "cache/debs"
        for version in ("1.0", "1.1"):
            hello = snapshot.packages.find("hello", version)
            route.fetch(hello.url, folder / version, size=hello.size, sha256=hello.sha256)
        assert bench.mirror.asked(".deb") == fetch.ATTEMPTS
        assert other.asked(".deb") == 2


@pytest.mark.fault(name="slow drip", place="release", ending="message")
def test_a_mirror_that_drips_is_told_as_too_slow(bench: Bench) -> None:
    bench.mirror.faults[INRELEASE] = drip
    error = bench.refuse()
    assert (error.exit_code, "too slow (" in error.brief) == (1, True), error.brief
    assert bench.mirror.asked(INRELEASE) == fetch.ATTEMPTS


@pytest.mark.fault(name="all mirrors fail", place="release", ending="message")
def test_when_all_mirrors_fail_one_error_names_them_all(bench: Bench) -> None:
    with MisbehavingMirror(bench.mirror.root) as other:
        bench.mirror.faults[INRELEASE] = status(500)
        other.faults[INRELEASE] = serve(b"<html>")
        error = bench.refuse(mirror=name_two(bench, other))
    assert error.exit_code == 5
    assert "none of 2 mirrors" in error.brief
    assert bench.mirror.url in error.details and other.url in error.details


@pytest.mark.fault(name="frozen or replayed", place="release", ending="message")
@pytest.mark.fault(name="frozen or replayed", place="release", ending="another mirror")
def test_a_mirror_that_goes_back_in_time_is_refused_and_a_better_one_taken(bench: Bench) -> None:
    old = (bench.mirror.root / f"debian{INRELEASE}").read_bytes()
    bench.publish(dated_days_ago=0.5)
    bench.build()
    bench.mirror.faults[INRELEASE] = serve(old)
    error = bench.refuse(snapshot_max_age="0")
    assert error.exit_code == 5
    assert "frozen or replayed" in error.brief and "showed a newer one before" in error.brief
    assert "cache/seen/bookworm-" in error.hint
    with MisbehavingMirror(bench.mirror.root) as other:
        state = bench.build(mirror=name_two(bench, other))
        assert read_snapshot(state.folder).sources[0].uri == other.url


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"date": 7}', b'{"date": "soon"}', b"\0"])
def test_a_damaged_memory_of_what_was_seen_is_one_line(bench: Bench, damage: bytes) -> None:
    bench.build()
    for path in bench.project.output.glob("cache/seen/*"):
        path.write_bytes(damage)
    error = bench.refuse(snapshot_max_age="0")
    assert (error.exit_code, "cache/seen/" in error.hint) == (5, True)
    for path in bench.project.output.glob("cache/seen/*"):
        path.unlink()
    bench.build(snapshot_max_age="0")


@pytest.mark.fault(name="lags behind another", place="release", ending="message")
def test_a_mirror_may_lag_behind_another_by_days_but_not_more(bench: Bench) -> None:
    bench.publish(dated_days_ago=8)
    lagging = (bench.mirror.root / f"debian{INRELEASE}").read_bytes()
    bench.publish(dated_days_ago=1)
    bench.build()
    with MisbehavingMirror(bench.mirror.root) as other:
        other.faults[INRELEASE] = serve(lagging)
        error = bench.refuse(mirror=other.url)
        assert "another mirror showed a newer one" in error.brief
        (bench.root / "mirrors").mkdir(parents=True)
        (bench.root / "mirrors/slow.toml").write_text(f'url = "{other.url}"\nmax_lag = "9d"\n')
        bench.build(mirror="slow")


@pytest.mark.fault(name="expired", place="release", ending="message")
def test_a_state_past_its_valid_until_is_taken_only_knowingly(bench: Bench) -> None:
    bench.publish(dated_days_ago=20, valid_days=7)
    error = bench.refuse()
    assert 'valid_until = "ignore"' in error.hint
    for policy, is_taken in (("ignore", True), ("30d", True), ("2d", False)):
        (bench.root / "mirrors").mkdir(parents=True, exist_ok=True)
        name = f"p{policy}"
        text = f'url = "{bench.mirror.url}"\nvalid_until = "{policy}"\n'
        (bench.root / f"mirrors/{name}.toml").write_text(text)
        if is_taken:
            assert bench.build(mirror=name).is_current
        else:
            assert "expired" in bench.refuse(mirror=name).brief


@pytest.mark.fault(name="password needed", place="package", ending="survived")
def test_a_mirrors_own_file_of_passwords_is_used_and_stays_unsaid(bench: Bench) -> None:
    bench.mirror.login = f"user:{SECRET}"
    folder = bench.root / "mirrors"
    folder.mkdir(parents=True)
    secret = folder / "lab.conf"
    secret.write_text(f"machine http://{bench.mirror.address} login user password {SECRET}\n")
    secret.chmod(0o600)
    (folder / "lab.toml").write_text(f'url = "{bench.mirror.url}"\ncredentials = "lab.conf"\n')
    snapshot = read_snapshot(bench.build(mirror="lab").folder)
    hello = snapshot.packages.find("hello", "1.0")
    target = bench.project.output / "cache/debs" / hello.sha256
    snapshot.route.fetch(hello.url, target, size=hello.size, sha256=hello.sha256)
    assert not (credentials.APT_FOLDER / "auth.conf").exists()
    bench.assert_no_secret()


@pytest.mark.fault(name="tampered", place="release", ending="message")
def test_an_old_archive_with_release_and_its_signature_apart_is_read(
    bench: Bench, keys: Any, old_key: str, tmp_path: Path
) -> None:
    keys.export(bench.keyring, old_key)
    bench.publish(
        "lenny",
        codename="lenny",
        suite="oldstable",
        dated_days_ago=1000,
        valid_days=0,
        signers=(old_key,),
        signed_days_ago=1000,
        has_by_hash=False,
        has_inrelease=False,
    )
    suite = bench.mirror.root / "debian/dists/lenny"
    assert not (suite / "InRelease").exists()
    old: dict[str, Any] = {"suite": "lenny", "updates": False, "security": False, "arch": "amd64"}
    old |= {"kernel": "/boot/vmlinuz-2.6.26-2-xen", "initrd": "/boot/initrd.img-2.6.26-2-xen"}
    state = bench.build(**old)
    names = {path.name for path in state.folder.iterdir()}
    assert {"Release-main", "Release-main.gpg"} <= names
    (suite / "Release").write_text((suite / "Release").read_text() + "X: y\n")
    error = bench.refuse(**old, snapshot_max_age="0")
    assert "tampered" in error.brief
