"""An image repository: followed from night to night, and attacked.

Whatever a server shows, a host installs what was signed for it, or nothing, and says why in a line.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.artifact.sums import measure_file
from pipeline.commands import delivery
from pipeline.commands.delivery_options import Keys, ListImages, Upload
from pipeline.errors import PipelineError, UsageError, VerificationError
from pipeline.mirror import fetch, http_client
from pipeline.recipe import Recipe
from pipeline.repository import download, metadata
from pipeline.repository.client import opened
from pipeline.repository.upload import upload
from pipeline.supply.keys import Role
from tests import whole_disk
from tests.host.bad_mirror import MisbehavingMirror, change, cut_short, status
from tests.host.kill_points import SURVIVED, run_and_kill
from tests.host.raw_answers import OK, ZEROS, flood, trickle
from tests.host.repository_bench import NAME, Dom0, Site, copy_tree, read_in
from tests.workshop import Workshop

pytestmark = pytest.mark.integration
SHORT = http_client.Bounds(connect_s=2, silent_s=2, head_s=3, slow_after_s=0.5)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(http_client, "BOUNDS", SHORT)
    for module in (fetch, download):
        monkeypatch.setattr(module, "PAUSE_S", 0.0)
    (tmp_path / "builder").mkdir()
    return Site(tmp_path / "builder")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MisbehavingMirror]:
    """It shows what lies in `shown`; `show` puts something there."""
    with MisbehavingMirror(tmp_path / "shown") as running:
        yield running


@pytest.fixture
def dom0(tmp_path: Path, server: MisbehavingMirror, monkeypatch: pytest.MonkeyPatch) -> Dom0:
    monkeypatch.setenv("DOMU_ROOT", str(tmp_path / "dom0/root"))
    return Dom0(tmp_path / "dom0", server)


def show(site: Site, server: MisbehavingMirror, generation: str) -> None:
    """A night is over, and the server has what it made."""
    site.night(generation)
    copy_tree(site.served, server.root)


@pytest.fixture
def follower(site: Site, server: MisbehavingMirror, dom0: Dom0) -> Dom0:
    """A host that has the first night installed."""
    show(site, server, "one")
    dom0.install(root=site.root)
    return dom0


def refuse(action: Callable[[], object], dom0: Dom0, said: str) -> VerificationError:
    """It ends with 5 and one line, and nothing is installed or changed."""
    before, version = dom0.files(), dom0.version
    with pytest.raises(VerificationError) as caught:
        action()
    assert caught.value.exit_code == 5
    assert said in caught.value.brief
    assert "\n" not in caught.value.brief and caught.value.hint
    assert (dom0.files(), dom0.version) == (before, version)
    return caught.value


def test_a_host_follows_from_night_to_night_by_what_has_changed(
    site: Site, server: MisbehavingMirror, follower: Dom0, capsys: pytest.CaptureFixture[str]
) -> None:
    first = follower.version
    keys = read_in(follower.disk(), "/etc/ssh/ssh_host_ed25519_key.pub")
    assert keys.startswith("ssh-ed25519 ")
    assert read_in(follower.disk(), "/etc/hostname") == f"{NAME}\n"
    assert oct(follower.disk().stat().st_mode & 0o777) == "0o600"
    second = site.night("three")
    copy_tree(site.served, server.root)
    server.requests.clear()
    follower.update()
    assert follower.version == second != first
    big = [path for path in server.requests if "/images/" in path or "/deltas/" in path]
    assert len(big) == 1 and "/deltas/" in big[0]
    delta = (server.root / big[0].lstrip("/")).stat().st_size
    whole = max(path.stat().st_size for path in server.root.glob("targets/images/*"))
    assert delta < whole / 10, f"{delta} of {whole} bytes"
    # bit for bit what was built, and the same guest to those who know it
    built = {measure_file(path) for path in site.project.store.glob("image/*/golden.img")}
    assert {measure_file(path) for path in follower.project.cache.images.glob("*.img")} == built
    assert read_in(follower.disk(2), "/etc/release").startswith("three\n")
    assert read_in(follower.disk(2), "/etc/ssh/ssh_host_ed25519_key.pub") == keys
    follower.update()
    assert "nothing to do" in capsys.readouterr().out


UEFI = {"type": "hvm", "boot": "firmware", "firmware": "uefi"}


@pytest.mark.parametrize(
    "spec",
    [{"type": "pvh", "boot": "grub", "disk": "whole"}, UEFI, {**UEFI, "cloud_init": True}],
    ids=["grub", "uefi", "template"],
)
def test_a_whole_disk_is_made_where_it_is_installed(
    site: Site, server: MisbehavingMirror, dom0: Dom0, spec: dict[str, object]
) -> None:
    site.spec = spec
    show(site, server, "one")
    dom0.install(root=site.root)
    text = (dom0.root / f"etc/xen/{NAME}.cfg").read_text()
    firmware = [path for path in dom0.files() if path.endswith("/OVMF.fd")]
    if spec["boot"] == "firmware":
        (path,) = firmware
        assert Path(path).read_bytes() == b"UEFI one"
        assert path.removeprefix(str(dom0.root)) in text
    show(site, server, "two")
    dom0.update()
    for generation, wanted in ((1, "one"), (2, "two")):
        disk = dom0.disk(generation)
        assert whole_disk.is_sound(disk)
        root = Path(whole_disk.name_of(disk))
        assert read_in(root, "/etc/release").startswith(f"{wanted}\n")
        menu = read_in(root, "/boot/grub/grub.cfg")
        assert f"root={read_in(root, '/etc/fstab').split()[0]} " in menu
        keys = "ssh-ed25519" in read_in(root, "/etc/ssh/ssh_host_ed25519_key.pub")
        assert keys == ("cloud_init" not in spec)


def test_what_is_served_holds_no_secret_and_no_disk(site: Site) -> None:
    site.night("one")
    secret = (site.project.artifact(NAME) / "disk.img").read_bytes()
    for path in site.served.rglob("*"):
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o004, path
        assert path.is_dir() or path.read_bytes() != secret
    names = {path.name.rpartition(".")[2] for path in site.served.rglob("*") if path.is_file()}
    assert "pem" not in names
    version = next((site.project.published / NAME).glob("2*"))
    assert version.stat().st_mode & 0o077 == 0


def test_who_is_not_told_whom_to_trust_fetches_nothing(
    site: Site, server: MisbehavingMirror, dom0: Dom0
) -> None:
    show(site, server, "one")
    with pytest.raises(UsageError, match="does not know whom to trust"):
        dom0.install()
    assert not server.requests and not dom0.files()


def test_an_unproven_version_is_installed_only_when_that_is_said(
    site: Site, server: MisbehavingMirror, dom0: Dom0
) -> None:
    site.night("one", proof="it was never proven")
    copy_tree(site.served, server.root)
    refuse(lambda: dom0.install(root=site.root), dom0, "without a proof")
    dom0.install(unproven=True)
    assert dom0.version


def test_a_table_and_json_list_what_there_is(
    site: Site, server: MisbehavingMirror, follower: Dom0, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for asked in ({"from": follower.url}, {"from": follower.url, "json": True}):
        delivery.list_images(follower.recipe, {}, ListImages.model_validate(asked))
    table, _, told = capsys.readouterr().out.partition("{")
    assert follower.version in table and "nightly stable" in table
    guests = json.loads("{" + told)
    assert guests[NAME]["channels"]["stable"] == follower.version


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.rglob(pattern), key=lambda path: path.stat().st_mtime_ns)


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("end", [".blocks", "json", "vmlinuz"])
def test_a_tampered_target_is_refused(
    site: Site, server: MisbehavingMirror, dom0: Dom0, end: str
) -> None:
    show(site, server, "one")
    if end == "vmlinuz":
        kernel = site.project.artifact(NAME) / end
        same = (path for path in server.root.glob("targets/files/*") if path.is_file())
        end = next(path.name for path in same if path.read_bytes() == kernel.read_bytes())
    if end == "json":
        end = next(server.root.glob("targets/guests/*/*.json")).name
    server.faults[end] = change(flipped)
    with pytest.raises(PipelineError) as caught:
        dom0.install(root=site.root)
    assert caught.value.exit_code == 5 and not dom0.files()


def test_at_the_command_line_a_refusal_is_code_5_and_a_line(
    site: Site, server: MisbehavingMirror, dom0: Dom0
) -> None:
    show(site, server, "one")
    server.faults["targets.json"] = change(flipped)
    outcome = Workshop(dom0.project.output, site.work / "guests").doit(
        "install", f"name={NAME}", f"from={dom0.url}", f"root={site.root}"
    )
    assert outcome.code == 5, outcome.said
    errors = [line for line in outcome.said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and dom0.url in errors[0] and "next:" in outcome.said
    assert not dom0.files()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_tampered_metadata_are_refused(
    site: Site, server: MisbehavingMirror, follower: Dom0, role: str
) -> None:
    show(site, server, "two")
    server.faults[f"{role}.json"] = change(flipped)
    refuse(follower.update, follower, follower.url)


def test_old_but_valid_metadata_are_a_rollback(
    site: Site, server: MisbehavingMirror, follower: Dom0, tmp_path: Path
) -> None:
    copy_tree(site.served, tmp_path / "old")
    show(site, server, "two")
    follower.update()
    copy_tree(tmp_path / "old", server.root)
    refuse(follower.update, follower, "an older state than this host has seen")


def test_what_has_expired_is_a_freeze(
    site: Site, server: MisbehavingMirror, follower: Dom0, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dict_of(metadata.LIFETIMES), "timestamp", timedelta(days=-1))
    show(site, server, "two")
    refuse(follower.update, follower, "have expired")


def dict_of(lifetimes: object) -> dict[str, timedelta]:
    assert isinstance(lifetimes, dict)
    return lifetimes


def test_another_key_signs_nothing_here(
    site: Site, server: MisbehavingMirror, follower: Dom0, tmp_path: Path
) -> None:
    (tmp_path / "thief").mkdir()
    thief = Site(tmp_path / "thief")
    thief.night("two")
    copy_tree(thief.served, server.root)
    refuse(follower.update, follower, "not signed by the keys")
    # nor does its chain of roots, which begins elsewhere
    metadata.rotate(thief.project, "root", metadata.Passphrases())
    thief.sign()
    copy_tree(thief.served, server.root)
    refuse(follower.update, follower, "not signed by the keys")


def test_parts_of_two_states_are_refused(
    site: Site, server: MisbehavingMirror, follower: Dom0, tmp_path: Path
) -> None:
    copy_tree(site.served, tmp_path / "old")
    show(site, server, "two")
    for role in ("snapshot", "targets"):
        old = newest(tmp_path / "old", f"*.{role}.json")
        new = newest(server.root, f"*.{role}.json")
        new.unlink()
        shutil.copyfile(old, new)
        refuse(follower.update, follower, follower.url)


@pytest.mark.parametrize("end", ["timestamp.json", ".blocks", "index.json"])
def test_data_without_end_are_refused(
    site: Site, server: MisbehavingMirror, follower: Dom0, end: str
) -> None:
    show(site, server, "two")
    server.faults[end] = flood(OK + b"\r\n", ZEROS)
    with pytest.raises(VerificationError):
        follower.update()
    held = sum(path.stat().st_size for path in follower.project.cache.images.glob(".*"))
    assert held < 1 << 20


@pytest.mark.parametrize("end", ["timestamp.json", ".blocks"])
def test_a_slow_server_is_given_up(
    site: Site, server: MisbehavingMirror, follower: Dom0, end: str
) -> None:
    show(site, server, "two")
    server.faults[end] = trickle(OK + b"\r\n", b"x")
    refuse(follower.update, follower, "too slow")


def test_a_broken_off_download_goes_on_where_it_was(
    site: Site, server: MisbehavingMirror, dom0: Dom0
) -> None:
    show(site, server, "one")
    server.once[".blocks"] = cut_short
    dom0.install(root=site.root)
    whole = next(server.root.glob("targets/images/*")).stat().st_size
    assert list(server.resumed.values()) == [whole // 2]


def test_a_part_of_another_version_does_no_harm(
    site: Site, server: MisbehavingMirror, dom0: Dom0
) -> None:
    show(site, server, "one")
    image = next(server.root.glob("targets/images/*"))
    sha256, kept = image.name.partition(".")[0], dom0.project.cache.images
    kept.mkdir(parents=True)
    (kept / f".{sha256}.part").write_bytes(os.urandom(image.stat().st_size // 3))
    dom0.install(root=site.root)
    assert server.resumed and server.asked(image.name) == 2
    # and where the server goes on with other bytes, it ends there
    server.faults[".blocks"] = change(flipped)
    for path in kept.iterdir():
        path.unlink()
    (kept / f".{sha256}.part").write_bytes(image.read_bytes()[:100])
    refuse(lambda: dom0.install(replace=True), dom0, "not what was signed")


def test_a_damaged_kept_image_costs_a_download_and_no_more(
    site: Site, server: MisbehavingMirror, follower: Dom0
) -> None:
    with open(next(follower.project.cache.images.glob("*.img")), "r+b") as image:
        image.seek(8 << 20)
        image.write(os.urandom(4 << 20))
    version = site.night("two")
    copy_tree(site.served, server.root)
    server.requests.clear()
    follower.update()
    assert follower.version == version
    assert [path for path in server.requests if "/images/" in path]


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_rotated_key_is_followed(
    site: Site, server: MisbehavingMirror, follower: Dom0, role: Role
) -> None:
    before = (site.project.keys / f"{role}.pem").read_bytes()
    recipe = Recipe(site.project, ())
    delivery.keys(recipe, {}, Keys.model_validate({"rotate": role}))
    assert (site.project.keys / f"{role}.pem").read_bytes() != before
    version = site.night("two")
    copy_tree(site.served, server.root)
    follower.update()
    assert follower.version == version


def test_a_rotated_key_of_statements_leaves_its_public_half(site: Site) -> None:
    keys = site.project.keys
    before = (keys / "statements.pub").read_bytes()
    delivery.keys(Recipe(site.project, ()), {}, Keys.model_validate({"rotate": "statements"}))
    assert (keys / "statements.pub").read_bytes() != before
    assert [path.read_bytes() for path in keys.glob("statements-*.pub")] == [before]


def test_a_passphrase_in_a_file_is_wanted_again(tmp_path: Path, site: Site) -> None:
    """The root's is another: who signs every night does not know it."""
    recipe = Recipe(replace(site.project, site=tmp_path / "other"), ())
    files = {}
    for name in ("passphrase", "root_passphrase"):
        files[name] = tmp_path / name
        files[name].write_text(f"{name} of a test\n")
        files[name].chmod(0o600)
    words = {name: str(path) for name, path in files.items()}
    delivery.keys(recipe, {}, Keys.model_validate(words))
    for path in recipe.project.keys.glob("*.pem"):
        assert b"ENCRYPTED" in path.read_bytes() and path.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="has a passphrase"):
        metadata.refresh(recipe.project)
    assert metadata.refresh(recipe.project, files["passphrase"])
    del words["root_passphrase"]
    with pytest.raises(UsageError, match="has a passphrase"):
        delivery.keys(recipe, {}, Keys.model_validate({"rotate": "targets", **words}))
    words["root_passphrase"] = str(files["root_passphrase"])
    delivery.keys(recipe, {}, Keys.model_validate({"rotate": "targets", **words}))


def test_a_root_that_ends_soon_is_told_of(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.sign()
    assert "root of trust" not in capsys.readouterr().out
    monkeypatch.setitem(dict_of(metadata.LIFETIMES), "root", timedelta(days=30))
    metadata.rotate(site.project, "snapshot", metadata.Passphrases())
    site.sign()
    assert "warning: the root of trust ends on" in capsys.readouterr().out


def test_an_upload_switches_at_its_end_and_sends_nothing_twice(
    site: Site, server: MisbehavingMirror, dom0: Dom0, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = site.night("one")
    url = f"file://{server.root}/copy"
    dom0.url += "/copy"
    first = upload(site.project, url)
    dom0.install(root=site.root)
    new = site.night("two")
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "mv", broken_off)
        with pytest.raises(PipelineError, match="the line is cut"):
            upload(site.project, url)
    dom0.update()
    assert dom0.version == old
    assert upload(site.project, url) < 10_000 < first
    dom0.update()
    assert dom0.version == new
    site.sign()
    site.sign()
    upload(site.project, url)
    own = {path.relative_to(site.served) for path in site.served.rglob("*") if path.is_file()}
    copy = server.root / "copy"
    assert {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()} == own
    with pytest.raises(UsageError, match="Protocol not known"):
        upload(site.project, "nosuch://bucket/x")
    with pytest.raises(ValueError, match="a password does not belong here"):
        Upload.model_validate({"to": "sftp://me:word@host/images"})


def broken_off(*_arguments: object) -> None:
    raise ConnectionError("the line is cut")


def test_versions_of_the_same_second_are_two(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    first, second = (site.night(name, is_served=False) for name in ("one", "two"))
    assert first < second


def test_killed_anywhere_the_repository_is_the_old_one_or_the_new(
    site: Site, tmp_path: Path
) -> None:
    old = site.night("one")
    new = site.night("two", is_served=False)
    seen, at = set(), 1
    while run_and_kill(site.sign, at, calls=("replace", "unlink")) != SURVIVED:
        with opened(
            f"file://{site.served}", tmp_path / f"state-{at}", tmp_path, root=site.root
        ) as repository:
            seen.add(repository.version(NAME, "stable"))
            assert repository.manifest(NAME, repository.version(NAME, "stable"))
        at += 1
    assert seen == {old, new} and at > 8


@pytest.mark.parametrize("role", ["root", "timestamp"])
def test_killed_anywhere_a_rotation_is_finished_or_undone(
    site: Site, tmp_path: Path, role: Role
) -> None:
    site.night("one")
    at = 1
    while (
        run_and_kill(
            lambda: metadata.rotate(site.project, role, metadata.Passphrases()),
            at,
            calls=("replace", "unlink"),
        )
        != SURVIVED
    ):
        site.sign()
        with opened(f"file://{site.served}", tmp_path / "state", tmp_path, root=site.root):
            at += 1
    assert at > 3


def test_without_a_server_the_reason_is_the_network_not_the_signature(
    site: Site, server: MisbehavingMirror, follower: Dom0
) -> None:
    server.faults["timestamp.json"] = status(503)
    with pytest.raises(PipelineError, match="503") as caught:
        follower.update()
    assert caught.value.exit_code == 1 and "mirror" not in caught.value.hint
    server.faults.clear()
    with pytest.raises(PipelineError, match=r"timestamp.json: not found \(404\)") as caught:
        delivery.list_images(
            follower.recipe,
            {},
            ListImages.model_validate({"from": f"{follower.url}/x", "root": str(site.root)}),
        )
    assert "address of an image repository" in caught.value.hint
