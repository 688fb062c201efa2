"""An appliance on a host: all members or none, whatever ends the command, and their day there."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from pipeline.appliance.members import load_appliance
from pipeline.artifact.folder import read_source
from pipeline.artifact.sums import write_sums
from pipeline.commands import COMMANDS
from pipeline.commands.change import replace_root_disk
from pipeline.commands.command_line import read_command_line
from pipeline.commands.options import Ssh
from pipeline.commands.ssh import ssh_words
from pipeline.dom0.configuration import Grammar
from pipeline.dom0.guest_root import site_of
from pipeline.dom0.inventory import Membership, list_members, require_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.rebuild import undo_rebuild
from pipeline.errors import (
    EnvironmentFault,
    InUseError,
    PipelineError,
    UsageError,
    VerificationError,
)
from pipeline.project import Project
from pipeline.recipe import DISKS, Recipe
from pipeline.stages import STAGES
from pipeline.storage.transaction import list_unfinished
from pipeline.xen import xl
from tests.conftest import ROOT
from tests.host.kill_points import SURVIVED, run_and_kill
from tests.host.small_artifact import ABIS, hostname_in, make_artifact, make_kernel
from tests.host.test_dom0_kills import MOST_STEPS, copy_root, kill_everywhere
from tests.turns import spread

pytestmark = pytest.mark.integration
NAME, GUESTS = "shop", ("shop-db", "shop-web")
FILE = """\
[networks.link]
[members.web]
spec = "small"
after = ["db"]
ready = ["login"]
interfaces = [{ network = "link", address = "10.77.0.2/29" }]
[members.db]
spec = "small"
interfaces = [{ network = "link", address = "10.77.0.1/29" }]
[shared.quorum]
members = ["db", "web"]
size = "1M"
"""


class ApplianceBench:
    """Two members built, the appliance's file, a host's folder."""

    def __init__(self, work: Path) -> None:
        self.work, self.root = work, work / "root"
        self.project = Project(ROOT, work / "output", work / "guests")
        for folder in (self.project.guests, self.project.appliances):
            folder.mkdir(parents=True)
        (self.project.guests / "small.toml").write_text('size = "1G"\nswap = "64M"\ntype = "pv"\n')
        (self.project.appliances / f"{NAME}.toml").write_text(FILE)
        self.make("one")

    def make(self, generation: str) -> None:
        """Both artifacts as a build leaves them, in the place of those before."""
        kernel = make_kernel(self.work / f"kernel-{generation}", ABIS[0], flavour=generation)
        for spec in load_appliance(self.project, NAME).members.values():
            folder = self.project.artifact(spec.name)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            keys = spec.model_dump(
                mode="json", include={"interfaces", "shared"}, exclude_defaults=True
            )
            make_artifact(folder, spec.name, kernel=kernel, generation=generation, **keys)

    def ask(self, word: str, **options: str) -> str:
        """One command about the appliance; returns what it says."""
        options = {"appliance": NAME, **options}
        options = {key: text for key, text in options.items() if text}
        line = read_command_line([word, *map("=".join, options.items())])
        command, heard = COMMANDS[word], io.StringIO()
        subject: object = {} if command.is_single else load_appliance(self.project, NAME)
        with redirect_stdout(heard):
            command.run(Recipe(self.project, STAGES), subject, line.options_of(command))
        return heard.getvalue()

    def install(self, **more: str) -> str:
        return self.ask("install", unproven="yes", **more)

    def rebuild(self, name: str) -> None:
        """One member alone, from what was built last."""
        record = require_installed(self.layout, name)
        source = read_source(self.project.artifact(name), name=name)
        replace_root_disk(self.project, self.layout, record, source, "")

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    def installed(self) -> dict[str, str]:
        """The members that are whole, and what is in their disks."""
        members = {}
        for name, record in list_members(self.layout, NAME).items():
            assert self.layout.config(name).exists()
            members[name] = hostname_in(record.disks[0].path)
        return members


@contextmanager
def opened_elsewhere(path: Path) -> Iterator[None]:
    """While a process of its own has the file open, as QEMU has a running guest's."""
    script = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stdout.readline()
        yield
        process.stdin.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApplianceBench]:
    bench = ApplianceBench(tmp_path / "work")
    monkeypatch.setenv("DOMU_ROOT", str(bench.root))
    yield bench
    assert not list_unfinished(site_of(bench.layout))


def test_members_are_installed_listed_and_removed_together(bench: ApplianceBench) -> None:
    said = bench.install()
    assert "shop is installed: shop-db, shop-web" in said
    assert bench.installed() == {name: f"{name} one" for name in GUESTS}
    memberships = [record.membership for record in list_members(bench.layout, NAME).values()]
    assert memberships == [
        Membership(NAME, private=("shop-link",)),
        Membership(NAME, after=("shop-db",), ready=("login",), private=("shop-link",)),
    ]
    with pytest.raises(InUseError, match="installed already"):
        bench.install()
    (line, _other) = json.loads(bench.ask("list-guests", appliance="", json="yes") or "[]")
    assert (line["guest"], line["appliance"]) == ("shop-db", NAME)
    with pytest.raises(UsageError, match="shop-web is a member of shop"):
        bench.ask("remove", appliance="", name="shop-web")
    bench.make("two")
    bench.install(replace="yes")
    assert bench.installed() == {name: f"{name} two" for name in GUESTS}
    bench.ask("remove", yes="yes")
    assert not [path for path in bench.root.rglob("*") if path.is_file()]
    with pytest.raises(UsageError, match="no member of shop is installed"):
        bench.ask("remove", yes="yes")


def test_a_member_is_entered_by_the_card_that_the_host_sees(bench: ApplianceBench) -> None:
    bench.install()
    record = require_installed(bench.layout, "shop-db")
    card = next(card for card in Grammar("xl").domain(record.config_text).cards if card.bridge)
    leases = bench.root / "var/lib/misc/dnsmasq.leases"
    leases.parent.mkdir(parents=True)
    leases.write_text(f"0 {card.mac} 192.168.7.9 shop-db *\n")
    known_hosts = bench.project.artifact("shop-db") / "known_hosts"
    known_hosts.write_text("shop-db,10.77.0.1 ssh-ed25519 AAAA\n")
    asked = Ssh.model_validate({"name": "shop-db"})
    assert ssh_words(Recipe(bench.project, STAGES), asked)[-1] == "192.168.7.9"


def test_one_that_cannot_be_installed_keeps_the_others_out(bench: ApplianceBench) -> None:
    (bench.root / "etc/xen").mkdir(parents=True)
    foreign = bench.layout.config("shop-web")
    foreign.write_text("name = 'shop-web'")
    with pytest.raises(InUseError, match="was not installed by doit"):
        bench.install()
    foreign.unlink()
    disk = bench.project.artifact("shop-web") / "disk.img"
    disk.write_bytes(disk.read_bytes()[:-1] + b"x")
    with pytest.raises(PipelineError, match="is not what"):
        bench.install()
    assert not [path for path in bench.root.rglob("*") if path.is_file()]


def test_a_shared_disk_is_one_file_for_all_who_see_it(bench: ApplianceBench) -> None:
    bench.install()
    members = list_members(bench.layout, NAME)
    shared = {name: record.disks[-1] for name, record in members.items()}
    path = bench.layout.disks("shop-db", 1) / "disk-quorum.img"
    assert {disk.path for disk in shared.values()} == {path}
    assert {name: disk.is_owned for name, disk in shared.items()} == {
        "shop-db": True,
        "shop-web": False,
    }
    assert {disk.role for disk in shared.values()} == {"shared"}
    for name in GUESTS:
        domain = xl.parse(bench.layout.config(name).read_text())
        assert (domain.disks[-1].target, domain.disks[-1].access) == (str(path), "shared")
    assert path.read_bytes() == bytes(1 << 20) and path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"votes".ljust(1 << 20, b"\0"))
    with pytest.raises(InUseError, match="removing shop-db would lose") as caught:
        bench.ask("remove")
    assert f"{path}: its guest has written to it" in caught.value.details


def test_one_member_anew_keeps_the_disk_that_others_have(bench: ApplianceBench) -> None:
    with pytest.raises(UsageError, match="other guests write to its disk xvda3"):
        bench.ask("install", appliance="", name="shop-web", unproven="yes")
    bench.install()
    path = bench.layout.disks("shop-db", 1) / "disk-quorum.img"
    path.write_bytes(b"votes".ljust(1 << 20, b"\0"))
    bench.make("two")
    with opened_elsewhere(path):  # the other one runs
        for name in GUESTS:
            bench.rebuild(name)
        with pytest.raises(InUseError, match=r"disk-quorum\.img is in use by process"):
            bench.install(replace="yes")
    assert bench.installed() == {name: f"{name} two" for name in GUESTS}
    assert path.read_bytes().startswith(b"votes")
    assert {each.disks[-1].path for each in list_members(bench.layout, NAME).values()} == {path}
    for name in GUESTS:
        undo_rebuild(bench.layout, name, None)
    assert path.read_bytes().startswith(b"votes")
    bench.install(replace="yes")
    (new,) = {each.disks[-1].path for each in list_members(bench.layout, NAME).values()}
    assert new != path and not path.exists() and not new.read_bytes().strip(b"\0")
    bench.ask("remove", yes="yes")
    assert not [path for path in bench.root.rglob("*") if path.is_file()]


def test_a_shared_disk_that_nobody_brings_keeps_all_out(bench: ApplianceBench) -> None:
    config = bench.project.artifact("shop-web") / "shop-web.cfg"
    config.write_text(config.read_text().replace("shop-db/disk-quorum", "shop-db/disk-other"))
    write_sums(config.parent, disks=DISKS)
    with pytest.raises(VerificationError, match=r"disk-other\.img is in no other's artifact"):
        bench.install()
    assert not [path for path in bench.root.rglob("*") if path.is_file()]


def test_a_missing_bridge_is_told_with_the_lines_of_dom0_toml(bench: ApplianceBench) -> None:
    net = bench.root / "sys/class/net"
    net.mkdir(parents=True)
    with pytest.raises(EnvironmentFault, match="shop needs shop-link") as caught:
        bench.install()
    assert "[bridge.shop-link]\nports = []" in caught.value.details
    (net / "shop-link/bridge").mkdir(parents=True)
    bench.install()


def test_what_was_published_together_is_installed_together(bench: ApplianceBench) -> None:
    with pytest.raises(UsageError, match="no published version"):
        bench.install(**{"from": "published"})
    bench.ask("publish", unproven="yes")
    bench.make("two")
    bench.ask("publish", unproven="yes")
    assert "is published" in bench.ask("publish", unproven="yes")
    folder = bench.project.published.with_name("published-appliances") / NAME
    assert len(list(folder.glob("2*.json"))) == 2, "the same again is no further version"
    bench.ask("publish", rollback="yes")
    bench.install(**{"from": "published"})
    assert bench.installed() == {name: f"{name} one" for name in GUESTS}
    with pytest.raises(UsageError, match="no published version before"):
        bench.ask("publish", rollback="yes")
    damaged = folder / (folder / "current").readlink()
    damaged.write_text(damaged.read_text().replace("shop-db", "../db"))
    with pytest.raises(PipelineError, match=r"\.json"):
        bench.install(**{"from": "published", "replace": "yes"})


def test_one_that_is_not_proven_keeps_the_others_unpublished(bench: ApplianceBench) -> None:
    with pytest.raises(PipelineError, match="is not proven") as refusal:
        bench.ask("publish")
    assert f"doit prove appliance={NAME}" in (refusal.value.hint or "")
    assert not list(bench.project.published.rglob("2*"))


KILLED: dict[str, Callable[[ApplianceBench], object]] = {
    "install": lambda bench: bench.install(),
    "install over": lambda bench: bench.install(replace="yes"),
    "remove": lambda bench: bench.ask("remove", yes="yes"),
}


@pytest.mark.parametrize("word", spread(KILLED, 3))
def test_killed_at_every_step_it_is_all_members_or_none(
    bench: ApplianceBench, tmp_path: Path, word: str
) -> None:
    if word != "install":
        bench.install()
        bench.make("two")
    kill_everywhere(bench, tmp_path, lambda: KILLED[word](bench), checks_boot=False)


def test_a_kill_is_ended_by_whoever_comes_to_one_member(
    bench: ApplianceBench, tmp_path: Path
) -> None:
    """The word that comes next is about one of them alone."""
    kills = {"old": 0, "new": 0}
    for at in range(1, MOST_STEPS, 7):
        copy_root(tmp_path / "nothing", bench.root)
        if run_and_kill(bench.install, at) == SURVIVED:
            break
        with pytest.raises(PipelineError):  # either there is none, or its appliance is named
            bench.ask("remove", appliance="", name="shop-web")
        members = bench.installed()
        assert set(members) in (set(), set(GUESTS))
        kills["new" if members else "old"] += 1
    assert min(kills.values()) > 0, kills
