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
    said = ground.ends(0, "guests")
    assert "  bad  BROKEN: suit: no such key (did you mean 'suite')\n" in said
    said = ground.ends(0, "build", f"name={GUEST}")
    assert "warning: guests/bad.toml: broken, not compared with one" in said
    said = ground.ends(2, "build", "name=bad")
    assert (ground.output / "guests/one").is_dir()
    said = ground.ends(2, "build")
    assert (ground.output / "guests/two/disk.img").is_file()
    assert said.count("error: ") == 1
    error = said.index("error: guests/bad.toml: suit: no such key")
    assert said.index("2 of 2 guests are ready") < error
    said = ground.ends(0, "create", "name=three", "size=256M")
    for word in ("list", "why", "gc"):
        assert ground.run(word)[0] == (2 if word == "why" else 0)


def forget(ground: Ground, name: str) -> None:
    (ground.root / f"guests/{name}.toml").unlink()


def list_left(ground: Ground, name: str) -> list[str]:
    """What output/ has of a guest."""
    return sorted(str(path.relative_to(ground.output)) for path in ground.output.glob(f"*/{name}"))


def test_a_guest_without_a_spec_is_shown_and_deleted(ground: Ground) -> None:
    ground.ends(0, "build")
    forget(ground, GUEST)
    line = f"doit delete name={GUEST}"
    for word in ("guests", "gc"):
        said = ground.ends(0, word)
        assert line in said, said
        assert "delete name=two" not in said, said
    said = ground.ends(0, "delete", f"name={GUEST}", "dry=yes")
    assert f"would remove {ground.output}/guests/{GUEST}" in said
    assert (ground.output / f"guests/{GUEST}/disk.img").is_file()
    said = ground.ends(0, "delete", f"name={GUEST}")
    assert list_left(ground, GUEST) == [f"identity/{GUEST}"]
    assert (ground.output / "guests/two/disk.img").is_file()
    assert line not in ground.run("guests")[1]
    said = ground.ends(2, "delete", "name=tow")
    assert "did you mean 'two'?" in said


def test_what_would_be_lost_for_good_is_asked_for(ground: Ground) -> None:
    ground.ends(0, "build", f"name={GUEST}")
    assert ground.run("publish", f"name={GUEST}", "unproven=yes")[0] == 0
    disk = ground.output / f"guests/{GUEST}/disk.img"
    with open(disk, "rb+") as stream:
        stream.write(b"\0")
    os.utime(disk)
    said = ground.ends(4, "delete", f"name={GUEST}")
    assert "its guest has written to it" in said
    said = ground.ends(0, "delete", f"name={GUEST}", "yes=yes")
    assert "stays: what was published of it" in said
    assert list_left(ground, GUEST) == [f"identity/{GUEST}", f"published/{GUEST}"]
    everything = ("delete", f"name={GUEST}", "spec=yes", "published=yes")
    said = ground.ends(4, *everything)
    assert f"{ground.root}/guests/{GUEST}.toml" in said
    said = ground.ends(0, *everything, "yes=yes")
    assert list_left(ground, GUEST) == []
    assert not (ground.root / f"guests/{GUEST}.toml").exists()


def test_a_disk_in_use_is_not_deleted(ground: Ground) -> None:
    ground.ends(0, "build", f"name={GUEST}")
    with open(ground.output / f"guests/{GUEST}/disk.img", "rb") as held:
        said = ground.ends(4, "delete", f"name={GUEST}", "yes=yes")
        assert f"is in use by process {os.getpid()}" in said
        assert held.read(1) == b"\0"
    ground.ends(0, "delete", f"name={GUEST}")


def test_a_deletion_that_is_killed_leaves_the_guest_or_nothing(ground: Ground) -> None:
    """At any checkpoint; whoever comes next finishes it."""
    outcomes = set()
    ground.ends(0, "build", f"name={GUEST}")
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


def run_in(ground: Ground, site: Path, *argv: str, below: str = "", code: int = 0) -> str:
    ended, said = ground.start(*argv, plug=in_site(site, below)).wait()
    assert ended == code, said
    return said


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(folder)]
    return subprocess.run([*command, *words], check=True, capture_output=True, text=True).stdout


def make_site(ground: Ground, name: str) -> Path:
    site = ground.root / name
    ground.ends(0, "init", str(site))
    shutil.copy(ground.root / f"guests/{GUEST}.toml", site / "guests")
    return site


def test_a_build_in_a_site_touches_no_file_of_the_users_nor_the_checkout(ground: Ground) -> None:
    require(shutil.which("git") is not None, "git")
    site = make_site(ground, "site")
    git(site, "init", "-q")
    git(site, "add", "-A")
    git(site, "commit", "-q", "-m", "mine")
    before = git(ROOT, "status", "--porcelain")
    said = run_in(ground, site, "build", f"name={GUEST}", below="guests")
    assert (site / f"output/guests/{GUEST}/disk.img").is_file()
    assert git(site, "status", "--porcelain") == ""
    assert git(ROOT, "status", "--porcelain") == before
    assert not ground.output.exists()
    said = run_in(ground, site, "guests")
    assert ("built" in said, "test-drbd" in said) == (True, False), said
    said = run_in(ground, site, "create", "name=web9", "size=256M")
    assert (site / "guests/web9.toml").read_text().startswith("#:schema ../spec.schema.json\n")
    assert (site / "spec.schema.json").resolve() == ROOT / "docs/spec.schema.json"


def test_two_sites_are_apart_until_they_name_one_output(ground: Ground) -> None:
    one, other = make_site(ground, "a"), make_site(ground, "b")
    for site in (one, other):
        said = run_in(ground, site, "build", f"name={GUEST}")
        assert "reused" not in said
    keys = [site / f"output/identity/{GUEST}/machine-id" for site in (one, other)]
    assert keys[0].read_text() != keys[1].read_text()
    (other / "guests/one.toml").rename(other / "guests/three.toml")
    run_in(ground, other, "delete", f"name={GUEST}")

    def share() -> None:
        in_site(other)()
        os.environ["DOMU_OUTPUT"] = str(one / "output")

    code, said = ground.start("build", "name=three", plug=share).wait()
    assert code == 0, said
    assert said.count("reused  ") == 5  # the golden half of the other site
    assert (one / "output/guests/three/disk.img").is_file()


def test_a_site_is_made_once_and_only_where_nothing_is(ground: Ground) -> None:
    site = ground.root / "site"
    said = ground.ends(0, "init", str(site))
    assert f"{site} is now a site" in said
    assert stat.S_IMODE((site / "secrets").stat().st_mode) == 0o700
    (site / "guests/defaults.toml").write_text('size = "8G"\n')
    shutil.rmtree(site / "mirrors")
    said = ground.ends(0, "init", str(site))
    assert "was missing: mirrors" in said
    assert (site / "guests/defaults.toml").read_text() == 'size = "8G"\n'
    for folder in (ground.root, ground.root / "guests/one.toml"):
        before = sorted(ground.root.rglob("*"))
        said = ground.ends(2, "init", str(folder))
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
    said = run_in(ground, site, "import-xen-tools", "../xen-tools.conf", "dry=yes")
    assert 'size = "8G"' in said
    defaults = site / "guests/defaults.toml"
    assert "8G" not in defaults.read_text()
    said = run_in(ground, site, "import-xen-tools", f"file={conf}")
    assert "not taken over: accounts: the host's accounts are not copied" in said
    assert tomllib.loads(defaults.read_text()) == {"size": "8G", "bridge": "xendmz"}
    said = run_in(ground, site, "import-xen-tools", f"file={conf}", code=2)
    assert "replace=yes" in said
    run_in(ground, site, "import-xen-tools", f"file={conf}", "replace=yes")
    said = ground.ends(2, "import-xen-tools", f"file={conf}")
    assert "there is no site" in said
