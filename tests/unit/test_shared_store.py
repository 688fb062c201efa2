"""A store that machines share, as a folder: what is pulled is what was signed, or nothing."""

import base64
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from securesystemslib.signer import CryptoSigner

from pipeline.errors import UsageError, VerificationError
from pipeline.remote.place import open_place
from pipeline.shared import entry
from pipeline.shared.collection import GRACE_S, Inventory, remove, take_inventory
from pipeline.shared.lease import Pace, leased
from pipeline.store.gc import plan_collection
from pipeline.store.store import BuildInfo, Store
from pipeline.supply.envelope import make_statement, sign
from pipeline.walls.certificates import Party
from tests.shared_bench import YEAR, Machine, files_there, make_fleet, same_bytes

FAST = Pace(beat_s=0.05, dead_s=0.5, look_s=0.02)


class Two:
    """One machine that builds, another that pulls, and the store between them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fleet = make_fleet(root / "fleet", "build1", "build2")
        self.url = f"file://{root}/shared"
        self.one = Machine.at(root / "one", self.url, self.fleet, "build1")
        self.two = Machine.at(root / "two", self.url, self.fleet, "build2")
        self.built = self.one.build()

    @property
    def place(self) -> Path:
        folder = entry.folder_of(self.built.stage, self.built.fingerprint)
        return self.root / "shared" / folder

    @property
    def statement(self) -> Path:
        return self.place / entry.STATEMENT

    def push(self) -> None:
        assert self.one.store().push(self.one.folder(self.built))

    def part(self, name: str) -> Path:
        """The packed file of an artifact's file."""
        number = sorted(self.built.files).index(name)
        (path,) = self.place.glob(f"*-{number}.zst")
        return path


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_what_one_machine_built_another_has_to_the_byte(
    two: Two, capsys: pytest.CaptureFixture[str]
) -> None:
    two.push()
    store = two.two.store()
    assert two.two.pull(two.built, store) == two.built
    assert same_bytes(two.one.folder(two.built), two.two.folder(two.built))
    image = two.two.folder(two.built) / "golden.img"
    assert image.stat().st_blocks * 512 < 2 << 20, "holes stay holes"
    assert image.stat().st_mtime == two.built.built_at
    assert "base     from the shared store, 0.3 MB, built by build1" in capsys.readouterr().out
    assert 300_000 < store.moved.pulled_bytes < 320_000
    assert Store.of(two.two.project).find_damage("base", two.built.fingerprint) == ""


def test_a_store_has_one_entry_however_often_it_is_pushed(two: Two) -> None:
    two.push()
    before = files_there(two.url)
    assert not two.one.store().push(two.one.folder(two.built))
    assert files_there(two.url) == before
    assert len(before) == 1 + 1 + len(two.built.files)


def test_a_mirrors_state_is_replaced_by_a_newer_one_and_never_by_an_older(two: Two) -> None:
    old = two.one.build("old", stage="mirror", identity="monday")
    assert two.one.store().push(two.one.folder(old))
    new = replace(
        two.two.build("new", stage="mirror", identity="tuesday"), built_at=old.built_at + 9
    )
    assert new.fingerprint == old.fingerprint
    (two.two.folder(new) / "buildinfo.json").write_bytes(new.to_json())
    assert two.two.store().push(two.two.folder(new))
    assert not two.one.store().push(two.one.folder(old))
    assert len(files_there(two.url)) == 1 + 1 + len(new.files), "nothing of the older one stays"
    pulled = two.one.pull(old)
    assert pulled is not None and pulled.identity == "tuesday"


def test_a_mirrors_state_of_a_clock_that_is_ahead_gives_way_to_one_of_now(two: Two) -> None:
    ahead = two.one.build("ahead", stage="mirror", identity="next year")
    ahead = replace(ahead, built_at=ahead.built_at + 365 * 86400)
    (two.one.folder(ahead) / "buildinfo.json").write_bytes(ahead.to_json())
    assert two.one.store().push(two.one.folder(ahead))
    now = two.two.build("now", stage="mirror", identity="today")
    assert two.two.store().push(two.two.folder(now))
    pulled = two.one.pull(now)
    assert pulled is not None and pulled.identity == "today"


def test_what_is_not_wanted_is_not_fetched(two: Two) -> None:
    two.push()
    asked: list[BuildInfo] = []

    def refuse(built: BuildInfo) -> bool:
        asked.append(built)
        return False

    store, room = two.two.store(), two.root / "room"
    room.mkdir()
    assert store.pull("base", two.built.fingerprint, room, is_wanted=refuse) is None
    assert asked == [two.built] and not list(room.iterdir()) and not store.moved.pulled_bytes


def test_other_bytes_of_the_same_inputs_are_told(
    two: Two, capsys: pytest.CaptureFixture[str]
) -> None:
    two.push()
    other = two.two.build()
    (two.two.folder(other) / "base.tar").write_bytes(b"x" * 300_000)
    files = {**other.files, "base.tar": {"size": 300_000, "sha256": "0" * 64}}
    (two.two.folder(other) / "buildinfo.json").write_bytes(replace(other, files=files).to_json())
    assert not two.two.store().push(two.two.folder(other))
    assert "build1 built other bytes of the same inputs" in capsys.readouterr().out


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _bomb(two: Two) -> None:
    """A stream that unpacks to a thousand times what was signed."""
    path = two.part("base.tar")
    path.write_bytes(zstandard.compress(bytes(1 << 28)))


def _resign(two: Two, party: Party, now: datetime | None = None, **changes: Any) -> None:
    """Another statement, rightly signed by a party, that says something else."""
    authority = (two.fleet / "ca.pem").read_bytes()
    key = two.built.fingerprint
    said = entry.read_statement(two.statement.read_bytes(), authority, "base", key, "here")
    two.statement.write_bytes(
        entry.render_statement(
            replace(said.buildinfo, **changes),
            said.content.upload,
            said.content.parts,
            party,
            now or datetime.now(UTC),
        )
    )


def _change(two: Two, change: Callable[[dict[str, Any]], object]) -> None:
    """A statement that no program of ours would make, rightly signed all the same."""
    outer = json.loads(two.statement.read_text())
    payload = json.loads(outer["envelope"])["payload"]
    content = json.loads(base64.b64decode(payload))["predicate"]
    change(content)
    subject = {part["name"]: part["sha256"] for part in content["parts"]}
    signer = CryptoSigner(Party(two.fleet, "build1").load_key())
    made = sign(make_statement(subject, entry.PREDICATE, content), signer).decode()
    two.statement.write_text(json.dumps({**outer, "envelope": made}))


def _sign_by_another_authority(two: Two) -> None:
    stranger = make_fleet(two.root / "stranger", "build1")
    _resign(two, Party(stranger, "build1"))


def _sign_after_the_end(two: Two) -> None:
    _resign(two, Party(two.fleet, "build1"), now=datetime.now(UTC) + 3 * YEAR)


def _climb(two: Two) -> None:
    """A name that leads out of the folder, of a signer that is trusted."""

    def rename(content: dict[str, Any]) -> None:
        files = content["buildinfo"]["files"]
        files["../../escaped"] = files.pop("base.tar")
        for part in content["parts"]:
            part["name"] = part["name"].replace("base.tar", "../../escaped")

    _change(two, rename)


def _set_user_id(two: Two) -> None:
    _change(two, lambda content: content["parts"][0].update(mode=0o4755))


def _promise_exabytes(two: Two) -> None:
    def change(content: dict[str, Any]) -> None:
        content["parts"][0]["size"] = 1 << 60
        name = content["parts"][0]["name"]
        content["buildinfo"]["files"][name]["size"] = 1 << 60

    _change(two, change)


def _say_less(two: Two) -> None:
    """One file less than its build had."""
    _change(two, lambda content: content["parts"].pop())


def _replay(two: Two) -> None:
    """An older artifact's entry, whole and rightly signed, under this fingerprint."""
    other = two.one.build("older")
    assert two.one.store().push(two.one.folder(other))
    shutil.rmtree(two.place)
    shutil.copytree(two.place.parent / other.fingerprint[:32], two.place)


def _lie_about_inputs(two: Two) -> None:
    _resign(two, Party(two.fleet, "build1"), inputs={"suite": "sid"})


HARM: dict[str, Callable[[Two], object]] = {
    "a bit of a file": lambda two: _flip(two.part("base.tar")),
    "a bit of the statement": lambda two: _flip(two.statement),
    "a file cut short": lambda two: two.part("base.tar").write_bytes(
        two.part("base.tar").read_bytes()[:1000]
    ),
    "a file longer than it is": lambda two: two.part("base.tar").write_bytes(
        two.part("base.tar").read_bytes() + bytes(1 << 20)
    ),
    "a file that is missing": lambda two: two.part("golden.img").unlink(),
    "two files exchanged": lambda two: shutil.copy(two.part("base.tar"), two.part("golden.img")),
    "a bomb": _bomb,
    "no statement but JSON": lambda two: two.statement.write_text('{"certificate": 7}'),
    "no JSON": lambda two: two.statement.write_bytes(b"\xff" * 100),
    "JSON in JSON in JSON": lambda two: two.statement.write_text("[" * 100_000),
    "a statement of 64 MiB": lambda two: two.statement.write_bytes(bytes(64 << 20)),
    "signed by another authority": _sign_by_another_authority,
    "signed when the certificate was no longer valid": _sign_after_the_end,
    "a name that climbs": _climb,
    "a mode that gives rights": _set_user_id,
    "a size of exabytes": _promise_exabytes,
    "one file less": _say_less,
    "another fingerprint's entry": _replay,
    "inputs that have another fingerprint": _lie_about_inputs,
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_wrong_is_named_dropped_and_built_again(
    two: Two, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    two.push()
    HARM[harm](two)
    capsys.readouterr()
    assert two.two.pull(two.built) is None
    said = capsys.readouterr().out
    assert "warning: " in said and two.built.fingerprint[:32] in said
    assert not (two.root / "escaped").exists()
    assert not list((two.two.project.output / "store").glob("*/*"))
    assert "dropped from the shared store" in said and not two.statement.exists()
    mended = two.two.build()
    assert two.two.store().push(two.two.folder(mended))
    assert two.one.pull(two.built) is not None
    assert same_bytes(two.one.folder(two.built), two.two.folder(mended))


def test_who_has_no_key_drops_nothing(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    two.push()
    _flip(two.part("base.tar"))
    reader = two.root / "reader"
    reader.mkdir()
    shutil.copy(two.fleet / "ca.pem", reader)
    machine = Machine.at(two.root / "three", two.url, reader)
    assert machine.pull(two.built) is None
    assert "dropped" not in capsys.readouterr().out and two.statement.exists()
    assert not machine.store().push(two.one.folder(two.built))


def test_what_was_signed_while_the_certificate_was_valid_stays_good(two: Two) -> None:
    before = datetime.now(UTC) - 2 * YEAR
    fleet = make_fleet(two.root / "old", "build1", at=before)
    now = make_fleet(two.root / "now", "build9")
    shutil.copy(fleet / "ca.pem", now / "ca.pem")  # who pulls has no key: it is not asked
    for path in now.glob("*-key.pem"):
        path.unlink()
    two.push()
    _resign(two, Party(fleet, "build1"), now=before + YEAR / 2)
    machine = Machine.at(two.root / "three", two.url, now)
    assert machine.pull(two.built) is not None


def test_a_store_needs_certificates_and_valid_ones(two: Two) -> None:
    machine = Machine.at(two.root / "three", two.url, two.root / "none")
    with pytest.raises(UsageError, match=r"holds no ca\.pem") as refusal:
        machine.store()
    assert "doit fleet certificates" in refusal.value.hint
    ended = make_fleet(two.root / "ended", "build1", at=datetime.now(UTC) - 2 * YEAR)
    with pytest.raises(VerificationError, match="has expired"):
        Machine.at(two.root / "three", two.url, ended).store()


def test_one_at_a_time_has_a_lease_and_the_dead_have_none(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/shared")
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with leased(place, "base-1", lambda _holder: None, FAST):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.1)
            inside.pop()

    # one that died: nothing writes it any more, and its host is another
    place.create("leases/base-1/000000007", b'{"host": "gone", "pid": 1}')
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert place.list("leases") == []


def test_a_lease_that_is_kept_is_waited_for_however_long(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/shared")
    waited: list[str] = []
    ended = threading.Event()

    def wait() -> None:
        with leased(place, "base-1", waited.append, FAST):
            assert ended.is_set()

    with leased(place, "base-1", lambda _holder: None, FAST):
        other = threading.Thread(target=wait)
        other.start()
        ended.wait(1.5)  # three times what a dead one is given
        assert other.is_alive() and len(waited) == 1
        ended.set()
    other.join()


def _inventory(two: Two, grace_s: float = 0.0) -> Inventory:
    return take_inventory(open_place(two.url), grace_s=grace_s)


def _age(two: Two, seconds: float) -> None:
    """All that lies there was written so long ago."""
    for path in (two.root / "shared").rglob("*"):
        state = path.stat()
        os.utime(path, (state.st_mtime - seconds, state.st_mtime - seconds))


def test_the_least_recently_used_goes_first_and_what_is_used_or_built_stays(two: Two) -> None:
    two.push()
    other = two.one.build("other")
    assert two.one.store().push(two.one.folder(other))
    _age(two, 2 * GRACE_S)
    assert two.two.pull(two.built) is not None
    inventory = _inventory(two, GRACE_S)
    assert {entry.path.name[:8]: entry.needed_by for entry in inventory.entries} == {
        two.built.fingerprint[:8]: "used within the hour",
        other.fingerprint[:8]: "",
    }
    plan = plan_collection(inventory.entries, 0)
    with two.one.store().lease("base", other.fingerprint):
        (held,) = [entry for entry in _inventory(two, GRACE_S).entries if entry.needed_by[0] == "s"]
        assert held.path.name == other.fingerprint[:32]
    (gone,) = remove(open_place(two.url), inventory, plan.doomed)
    assert gone.path.name == other.fingerprint[:32] and gone.size > 300_000
    assert not [name for name in files_there(two.url) if other.fingerprint[:32] in name]
    assert two.two.pull(two.built) is not None


def test_what_no_statement_names_goes_once_it_is_old(two: Two) -> None:
    two.push()
    before = files_there(two.url)
    litter = [
        f"base/{two.built.fingerprint[:32]}/{'1' * 32}-0.zst",  # a killed upload's
        f"base/{'2' * 32}/{'3' * 32}-0.zst",
        f"base/{two.built.fingerprint[:32]}/.statement.json.0123456789ab",
        f"leases/base-{'4' * 32}/000000001",
        f"sealed/web1/{'5' * 32}-0",
    ]
    place = open_place(two.url)
    for name in litter:
        place.replace(name, b"x")
    assert _inventory(two, GRACE_S).litter == ()
    _age(two, 2 * GRACE_S)
    inventory = _inventory(two, GRACE_S)
    assert inventory.litter == tuple(sorted(litter))
    assert list(remove(place, inventory, ())) == []
    assert files_there(two.url) == sorted([*before, "clock"])


def test_a_folder_that_is_no_store_is_left_alone(two: Two) -> None:
    (two.root / "shared").mkdir()
    (two.root / "shared/photo.jpg").write_text("dear")
    with pytest.raises(UsageError, match="no shared store"):
        _inventory(two)
    assert files_there(two.url) == ["photo.jpg"]
