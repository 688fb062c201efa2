"""A user's own folder as they work in it: specs that are broken, what is deleted, where it is."""

import os
import shutil
import signal
import stat
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.torture.program import ROOT, Ground

pytestmark = pytest.mark.integration

GUEST = "one"


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground.make(tmp_path / "ground", GUEST, "two")


def test_a_broken_spec_is_listed_and_stops_itself_alone(ground: Ground) -> None:
    (ground.root / "guests/bad.toml").write_text('suit = "bookworm"\n')
    code, said = ground.run("guests")
    assert code == 0, said
    assert "  bad  BROKEN: suit: no such key (did you mean 'suite')\n" in said
    code, said = ground.run("build", f"name={GUEST}")
    assert code == 0, said
    assert "warning: guests/bad.toml: broken, not compared with one" in said
    code, said = ground.run("build", "name=bad")
    assert code == 2, said
    assert (ground.output / "guests/one").is_dir()
    code, said = ground.run("build")
    assert code == 2, said
    assert (ground.output / "guests/two/disk.img").is_file()
    assert said.count("error: ") == 1
    error = said.index("error: guests/bad.toml: suit: no such key")
    assert said.index("2 of 2 guests are ready") < error
    code, said = ground.run("create", "name=three", "size=256M")
    assert code == 0, said
    for word in ("list", "why", "gc"):
        assert ground.run(word)[0] == (2 if word == "why" else 0)


def forget(ground: Ground, name: str) -> None:
    (ground.root / f"guests/{name}.toml").unlink()


def list_left(ground: Ground, name: str) -> list[str]:
    """What output/ has of a guest."""
    return sorted(str(path.relative_to(ground.output)) for path in ground.output.glob(f"*/{name}"))


def test_a_guest_without_a_spec_is_shown_and_deleted(ground: Ground) -> None:
    assert ground.run("build")[0] == 0
    forget(ground, GUEST)
    line = f"doit delete name={GUEST}"
    for word in ("guests", "gc"):
        code, said = ground.run(word)
        assert code == 0, said
        assert line in said, said
        assert "delete name=two" not in said, said
    code, said = ground.run("delete", f"name={GUEST}", "dry=yes")
    assert code == 0, said
    assert f"would remove {ground.output}/guests/{GUEST}" in said
    assert (ground.output / f"guests/{GUEST}/disk.img").is_file()
    code, said = ground.run("delete", f"name={GUEST}")
    assert code == 0, said
    assert list_left(ground, GUEST) == [f"identity/{GUEST}"]
    assert (ground.output / "guests/two/disk.img").is_file()
    assert line not in ground.run("guests")[1]
    code, said = ground.run("delete", "name=tow")
    assert code == 2, said
    assert "did you mean 'two'?" in said


def test_what_would_be_lost_for_good_is_asked_for(ground: Ground) -> None:
    assert ground.run("build", f"name={GUEST}")[0] == 0
    assert ground.run("publish", f"name={GUEST}", "unproven=yes")[0] == 0
    disk = ground.output / f"guests/{GUEST}/disk.img"
    with open(disk, "rb+") as stream:
        stream.write(b"\0")
    os.utime(disk)
    code, said = ground.run("delete", f"name={GUEST}")
    assert code == 4, said
    assert "its guest has written to it" in said
    code, said = ground.run("delete", f"name={GUEST}", "yes=yes")
    assert code == 0, said
    assert "stays: what was published of it" in said
    assert list_left(ground, GUEST) == [f"identity/{GUEST}", f"published/{GUEST}"]
    everything = ("delete", f"name={GUEST}", "spec=yes", "published=yes")
    code, said = ground.run(*everything)
    assert code == 4, said
    assert f"{ground.root}/guests/{GUEST}.toml" in said
    code, said = ground.run(*everything, "yes=yes")
    assert code == 0, said
    assert list_left(ground, GUEST) == []
    assert not (ground.root / f"guests/{GUEST}.toml").exists()


def test_a_disk_in_use_is_not_deleted(ground: Ground) -> None:
    assert ground.run("build", f"name={GUEST}")[0] == 0
    with open(ground.output / f"guests/{GUEST}/disk.img", "rb") as held:
        code, said = ground.run("delete", f"name={GUEST}", "yes=yes")
        assert code == 4, said
        assert f"is in use by process {os.getpid()}" in said
        assert held.read(1) == b"\0"
    assert ground.run("delete", f"name={GUEST}")[0] == 0


def test_a_deletion_that_is_killed_leaves_the_guest_or_nothing(ground: Ground) -> None:
    """At any checkpoint; whoever comes next finishes it."""
    outcomes = set()
    assert ground.run("build", f"name={GUEST}")[0] == 0
    shutil.copytree(ground.output, ground.root / "built", symlinks=True)
    for number in range(1, 40):
        shutil.rmtree(ground.output)
        shutil.copytree(ground.root / "built", ground.output, symlinks=True)
        count = iter(range(1, 1000))

        def kill(
            _point: str, _path: Path, count: Iterator[int] = count, last: int = number
        ) -> None:
            if next(count) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        code, said = ground.start("delete", f"name={GUEST}", watcher=kill).wait()
        folders = [ground.output / folder / GUEST for folder in ("guests", "volumes")]
        is_begun = (ground.output / f"switches/{GUEST}/switch.json").exists()
        if not is_begun:
            assert len({folder.is_dir() for folder in folders}) == 1, f"{number}: {said}"
        if code == 0:
            break
        code, said = ground.run("delete", f"name={GUEST}")
        outcomes.add(code)
        assert code in (0, 2), f"{number}: {said}"
        assert not any(folder.exists() for folder in folders), f"{number}: {said}"
        assert not (ground.output / f"switches/{GUEST}").exists(), f"{number}: {said}"
    assert code == 0, said
    assert outcomes == {0, 2}


def in_site(site: Path, below: str = "") -> Callable[[], None]:
    """In the child: stand in a site, with nothing of the environment that names folders."""

    def plug() -> None:
        for variable in ("DOMU_OUTPUT", "DOMU_GUESTS"):
            del os.environ[variable]
        os.environ["DOMU_CALLER"] = str(site / below)

    return plug


def run_in(ground: Ground, site: Path, *argv: str, below: str = "") -> tuple[int, str]:
    return ground.start(*argv, plug=in_site(site, below)).wait()


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(folder)]
    return subprocess.run([*command, *words], check=True, capture_output=True, text=True).stdout


def make_site(ground: Ground, name: str) -> Path:
    site = ground.root / name
    assert ground.run("init", str(site))[0] == 0
    shutil.copy(ground.root / f"guests/{GUEST}.toml", site / "guests")
    return site


def test_a_build_in_a_site_touches_no_file_of_the_users_nor_the_checkout(ground: Ground) -> None:
    require(shutil.which("git") is not None, "git")
    site = make_site(ground, "site")
    git(site, "init", "-q")
    git(site, "add", "-A")
    git(site, "commit", "-q", "-m", "mine")
    before = git(ROOT, "status", "--porcelain")
    code, said = run_in(ground, site, "build", f"name={GUEST}", below="guests")
    assert code == 0, said
    assert (site / f"output/guests/{GUEST}/disk.img").is_file()
    assert git(site, "status", "--porcelain") == ""
    assert git(ROOT, "status", "--porcelain") == before
    assert not ground.output.exists()
    code, said = run_in(ground, site, "guests")
    assert (code, "built" in said, "test-drbd" in said) == (0, True, False), said
    code, said = run_in(ground, site, "create", "name=web9", "size=256M")
    assert code == 0, said
    assert (site / "guests/web9.toml").read_text().startswith("#:schema ../spec.schema.json\n")
    assert (site / "spec.schema.json").resolve() == ROOT / "docs/spec.schema.json"


def test_two_sites_are_apart_until_they_name_one_output(ground: Ground) -> None:
    one, other = make_site(ground, "a"), make_site(ground, "b")
    for site in (one, other):
        code, said = run_in(ground, site, "build", f"name={GUEST}")
        assert code == 0, said
        assert "reused" not in said
    keys = [site / f"output/identity/{GUEST}/machine-id" for site in (one, other)]
    assert keys[0].read_text() != keys[1].read_text()
    (other / "guests/one.toml").rename(other / "guests/three.toml")
    assert run_in(ground, other, "delete", f"name={GUEST}")[0] == 0

    def share() -> None:
        in_site(other)()
        os.environ["DOMU_OUTPUT"] = str(one / "output")

    code, said = ground.start("build", "name=three", plug=share).wait()
    assert code == 0, said
    assert said.count("reused  ") == 5  # the golden half of the other site
    assert (one / "output/guests/three/disk.img").is_file()


def test_a_site_is_made_once_and_only_where_nothing_is(ground: Ground) -> None:
    site = ground.root / "site"
    code, said = ground.run("init", str(site))
    assert code == 0, said
    assert f"{site} is now a site" in said
    assert stat.S_IMODE((site / "secrets").stat().st_mode) == 0o700
    (site / "guests/defaults.toml").write_text('size = "8G"\n')
    shutil.rmtree(site / "mirrors")
    code, said = ground.run("init", str(site))
    assert code == 0, said
    assert "was missing: mirrors" in said
    assert (site / "guests/defaults.toml").read_text() == 'size = "8G"\n'
    for folder in (ground.root, ground.root / "guests/one.toml"):
        before = sorted(ground.root.rglob("*"))
        code, said = ground.run("init", str(folder))
        assert code == 2, said
        assert sorted(ground.root.rglob("*")) == before

    def name_it() -> None:
        os.environ["DOMU_SITE"] = str(ground.root / "new")

    code, said = ground.start("build", f"name={GUEST}", plug=name_it).wait()
    assert code == 2, said
    assert f"doit init {ground.root}/new" in said
    assert ground.start("init", f"{ground.root}/new", plug=name_it).wait()[0] == 0


def test_xen_tools_defaults_become_those_of_a_site(ground: Ground) -> None:
    site = make_site(ground, "site")
    conf = ground.root / "xen-tools.conf"
    conf.write_text("size = 8G # root disk\nbridge = xendmz\naccounts = 1\n")
    code, said = run_in(ground, site, "import-xen-tools", "../xen-tools.conf", "dry=yes")
    assert code == 0, said
    assert 'size = "8G"' in said
    defaults = site / "guests/defaults.toml"
    assert "8G" not in defaults.read_text()
    code, said = run_in(ground, site, "import-xen-tools", f"file={conf}")
    assert code == 0, said
    assert "not taken over: accounts: the host's accounts are not copied" in said
    assert tomllib.loads(defaults.read_text()) == {"size": "8G", "bridge": "xendmz"}
    code, said = run_in(ground, site, "import-xen-tools", f"file={conf}")
    assert code == 2, said
    assert "replace=yes" in said
    assert run_in(ground, site, "import-xen-tools", f"file={conf}", "replace=yes")[0] == 0
    code, said = ground.run("import-xen-tools", f"file={conf}")
    assert code == 2, said
    assert "there is no site" in said
