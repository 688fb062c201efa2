"""A shared store where it may lie: a folder, s3, sftp, a web server, with real servers."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from pipeline.remote.place import Place, PlaceTrouble, open_place
from pipeline.shared.collection import remove, take_inventory
from pipeline.shared.entry import MARKER
from pipeline.shared.shared_store import SharedStore
from pipeline.store.gc import plan_collection
from tests.host.store_servers import BUCKET, Server, make_bucket, s3_server, sftp_server
from tests.shared_bench import Machine, make_fleet, same_bytes
from tests.wire import LOCALHOST, WebServer

pytestmark = pytest.mark.integration
KEY = bytes(range(32))


@dataclass
class Site:
    """Two machines and a store of one kind between them."""

    root: Path
    url: str
    server: Server | None
    one: Machine
    two: Machine

    @cached_property
    def first(self) -> SharedStore:
        return self.one.store(is_strict=True)

    @cached_property
    def second(self) -> SharedStore:
        return self.two.store(is_strict=True)

    @cached_property
    def place(self) -> Place:
        return open_place(self.url)

    def files(self) -> list[str]:
        return [file.name for file in self.place.list("")]


@pytest.fixture(params=["file", "s3", "sftp"])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    with ExitStack() as stack:
        server, url = None, f"file://{tmp_path}/shared"
        if request.param == "s3":
            server, url = stack.enter_context(s3_server(monkeypatch)), f"s3://{BUCKET}/store"
        elif request.param == "sftp":
            server = stack.enter_context(sftp_server(tmp_path, monkeypatch))
            url = f"sftp://{LOCALHOST}:{server.port}{tmp_path}/shared"
        fleet = make_fleet(tmp_path / "fleet", "build1", "build2")
        yield Site(
            tmp_path,
            url,
            server,
            Machine.at(tmp_path / "one", url, fleet, "build1"),
            Machine.at(tmp_path / "two", url, fleet, "build2"),
        )


def test_a_store_of_each_kind_holds_gives_leases_and_forgets(site: Site) -> None:
    """One after the other on one server: a start of one costs a second."""
    built = site.one.build()
    store = site.first
    with store.lease("base", built.fingerprint):
        assert store.push(site.one.folder(built))
    assert not store.push(site.one.folder(built))
    assert site.two.pull(built, site.second) == built
    assert same_bytes(site.one.folder(built), site.two.folder(built))
    assert len(site.files()) == 1 + 1 + len(built.files) + 1

    _replace_the_mirrors_state(site)
    _race(site)
    _hold_in_turn(site)
    _send_sealed(site)
    _damage(site)

    inventory = take_inventory(site.place, grace_s=-1)
    assert inventory.litter == () and len(inventory.entries) == 3
    assert (
        len(list(remove(site.place, inventory, plan_collection(inventory.entries, 0).doomed))) == 3
    )
    assert site.files() == sorted([MARKER, "clock"])


def _replace_the_mirrors_state(site: Site) -> None:
    for word in ("monday", "tuesday"):
        built = site.one.build(word, stage="mirror", identity=word)
        later = site.one.folder(built) / "buildinfo.json"
        text = later.read_text().replace(str(built.built_at), str(built.built_at + len(word)))
        later.write_text(text)
        assert site.first.push(site.one.folder(built))
    pulled = site.two.pull(built, site.second)
    assert pulled is not None and pulled.identity == "tuesday"


def _race(site: Site) -> None:
    """Several that publish the same at once: one entry, and nothing of the others'."""
    built = site.one.build("race")
    before = site.files()
    won: list[bool] = []
    begin = threading.Barrier(4)
    assert site.first.is_writable

    def push() -> None:
        begin.wait()
        won.append(site.first.push(site.one.folder(built)))

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, False, False, True]
    assert len(site.files()) == len(before) + 1 + len(built.files)


def _hold_in_turn(site: Site) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with site.first.lease("base", "f" * 64):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.2)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert not [name for name in site.files() if name.startswith("leases/")]


def _send_sealed(site: Site) -> None:
    folder, target = site.root / "web1", site.root / "target"
    folder.mkdir()
    target.mkdir()
    (folder / "disk.img").write_bytes(os.urandom(3 << 20))
    site.first.push_sealed("web1", folder, KEY)
    site.second.pull_sealed("web1", target, KEY)
    assert same_bytes(folder, target / "web1")
    site.first.remove_sealed("web1")
    assert not [name for name in site.files() if name.startswith("sealed/")]


def _damage(site: Site) -> None:
    built = site.one.build("race")
    folder = f"base/{built.fingerprint[:32]}"
    (name,) = [name for name in site.files() if name.startswith(folder) and "-0." in name]
    site.place.replace(name, b"poison" * 1000)
    assert site.two.pull(built, site.second) is None
    assert not [name for name in site.files() if name.startswith(folder)]
    assert site.first.push(site.one.folder(built))
    assert site.two.pull(built, site.second) == built


def test_a_server_that_is_killed_is_told_once_and_done_without(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    if site.server is None:
        return
    built, other = site.one.build(), site.one.build("other")
    assert site.one.store(is_strict=True).push(site.one.folder(built))
    store = site.two.store()
    assert store.pull("base", built.fingerprint, _room(site)) == built
    site.server.kill()
    capsys.readouterr()
    assert store.pull("base", built.fingerprint, _room(site)) is None
    with store.lease("base", other.fingerprint):
        assert not store.push(site.one.folder(other))
    assert store.pull("base", other.fingerprint, _room(site)) is None
    said = capsys.readouterr().out
    assert said.count("warning: ") == 1 and "not read any more in this run" in said
    with pytest.raises(PlaceTrouble):
        site.two.store(is_strict=True).pull("base", built.fingerprint, _room(site))
    site.server.start()
    if site.url.startswith("s3"):
        make_bucket()  # moto keeps nothing
        assert site.one.store(is_strict=True).push(site.one.folder(built))
    assert site.two.pull(built, site.two.store(is_strict=True)) == built


def _room(site: Site) -> Path:
    room = site.root / os.urandom(4).hex()
    room.mkdir()
    return room


def test_an_sftp_server_that_is_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sftp_server(tmp_path, monkeypatch) as server:
        known = tmp_path / "home/.ssh/known_hosts"
        right = known.read_text()
        place = open_place(f"sftp://{LOCALHOST}:{server.port}{tmp_path}/shared")
        known.write_text("")
        with pytest.raises(PlaceTrouble, match="not found in known_hosts") as refusal:
            place.list("")
        assert "ssh-keyscan" in refusal.value.hint
        own = (tmp_path / "home/.ssh/id_ed25519.pub").read_text()
        known.write_text(f"{right.split()[0]} {own}")
        with pytest.raises(PlaceTrouble) as refusal:
            place.list("")
        assert "ask its owner" in refusal.value.hint
        known.write_text(right)
        place.replace("a/b", b"content")
        assert place.read("a/b", limit=100) == b"content"
        (tmp_path / "home/.ssh/id_ed25519").unlink()
        other = open_place(f"sftp://{LOCALHOST}:{server.port}{tmp_path}/shared")
        with pytest.raises(PlaceTrouble) as refusal:
            other.list("")
        assert "none of this user's SSH keys" in refusal.value.hint


def test_a_web_server_is_read_from_and_never_written_to(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", "build1", "build2")
    one = Machine.at(tmp_path / "one", f"file://{tmp_path}/shared", fleet, "build1")
    built, other = one.build(), one.build("other")
    assert one.store().push(one.folder(built))
    web = WebServer(tmp_path / "shared")
    try:
        two = Machine.at(tmp_path / "two", web.url, fleet, "build2")
        store = two.store()
        assert not store.is_writable
        assert two.pull(built, store) == built
        assert same_bytes(one.folder(built), two.folder(built))
        with store.lease("base", other.fingerprint):
            assert two.pull(other, store) is None
        assert not store.push(one.folder(other))
        (part,) = (tmp_path / "shared/base").glob("*/*-0.zst")
        part.write_bytes(part.read_bytes() + bytes(5 << 20))
        shutil.rmtree(two.project.store)
        assert two.pull(built, store) is None, "more than was signed"
    finally:
        web.stop()
