"""xen-tools' commands as they are typed, from any folder; their lines beside the real parser."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.spec.xen_create_image import grammar
from tests.conftest import ROOT, require
from tests.torture.program import Ground

pytestmark = pytest.mark.integration

PARSER = Path(__file__).with_name("getopt_long.pl")
SPECS = {
    "xen-create-image": grammar._CREATE.split(),
    "xen-delete-image": grammar._DELETE.split(),
    "xen-list-images": grammar._LIST.split(),
}


class RealParser:
    """Perl's Getopt::Long with one program's options; a line in, a line out."""

    def __init__(self, specs: list[str]) -> None:
        self._perl = subprocess.Popen(
            ["perl", PARSER, *specs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self, words: list[str]) -> dict[str, object]:
        assert self._perl.stdin is not None
        assert self._perl.stdout is not None
        self._perl.stdin.write(json.dumps(words) + "\n")
        self._perl.stdin.flush()
        answer = json.loads(self._perl.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        self._perl.communicate()


def words_for(specs: list[str]) -> st.SearchStrategy[list[str]]:
    """Options whole, cut short, negated, with and without a value, in any case; other words."""
    names = [name for spec in specs for name in re.findall(r"^[\w-]+", spec)]
    cut = st.sampled_from(names).flatmap(
        lambda name: st.integers(1, len(name)).map(lambda length: name[:length])
    )
    name = st.one_of(st.sampled_from(names), cut, cut.map(str.upper), st.just("nosuch"))
    name = st.one_of(name, name.map(lambda text: f"no{text}"), name.map(lambda text: f"no-{text}"))
    value = st.sampled_from(["", "4G", "0", "1_0", "-5", "+7", "--", "-", "x=y", "--dhcp", "a b"])
    prefix = st.sampled_from(["--", "-", "+"])
    option = st.builds(lambda sign, text: f"{sign}{text}", prefix, name)
    return st.lists(st.one_of(option, st.builds("{}={}".format, option, value), value), max_size=6)


@pytest.mark.parametrize("program", SPECS)
def test_any_line_is_read_as_perl_reads_it(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require(os.path.exists("/usr/bin/perl"), "perl")
    real = RealParser(SPECS[program])
    # without the options of 3.x, which this perl does not know
    monkeypatch.setitem(vars(grammar)["PROGRAMS"], program, grammar.PROGRAMS[program][:1])

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(words_for(SPECS[program]))
    def agree(words: list[str]) -> None:
        answer = real.read(words)
        try:
            typed = grammar.read_line(program, words)
        except UsageError:
            assert not answer["ok"], words
            return
        assert answer["ok"], words
        assert list(typed.words) == answer["words"], words
        assert typed.options == answer["got"], words

    try:
        agree()
    finally:
        real.close()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground.make(tmp_path / "ground")


CREATE = ("xen-create-image", "--hostname", "web1", "--dhcp", "--size=256M", "--swap", "2M")


def test_a_guest_is_made_installed_listed_and_deleted(ground: Ground) -> None:
    said = ground.ends(0, *CREATE, "--dir=/srv/xen", "--role", "udev")
    assert said.count("note: dir: ") == 1
    assert said.count("note: role: `udev`") == 1
    password = ground.output / "identity/web1/root-password"
    assert f"note: genpass: root's password is not printed, it is in {password}" in said
    assert len(password.read_text()) == 23
    assert password.stat().st_mode & 0o777 == 0o600
    assert password.read_text() not in said
    config = ground.host / "etc/xen/web1.cfg"
    disk = ground.host / "var/lib/xen/images/web1/1/disk.img"
    assert disk.is_file()
    assert str(disk) in config.read_text()
    said = ground.ends(0, "xen-list-images")
    assert re.fullmatch(
        rf"Name: web1\nMemory: 256 MB\nDHCP \[MAC: [0-9a-f:]{{17}}\]\nConfig: {config}\n", said
    )
    code, said = ground.run("xen-delete-image", "--dry-run", "web1")
    assert (code, config.is_file()) == (0, True), said
    said = ground.ends(127, "xen-delete-image", "--lvm=VG0", "web1", "nobody")
    assert "nobody was neither built nor installed" in said
    assert not config.exists()
    assert not disk.exists()
    assert not (ground.root / "guests/web1.toml").exists()
    assert not password.exists()
    code, said = ground.run("xen-list-images")
    assert (code, said.strip()) == (0, "")


def test_the_same_line_again_wants_force(ground: Ground) -> None:
    ground.ends(0, *CREATE)
    config = ground.host / "etc/xen/web1.cfg"
    before = config.stat().st_ino
    said = ground.ends(127, *CREATE)
    assert "web1 is installed already" in said
    assert config.stat().st_ino == before
    said = ground.ends(127, *CREATE, "--memory", "512M")
    assert "guests/web1.toml exists already" in said
    said = ground.ends(0, *CREATE, "--memory", "512M", "--force")
    assert "memory = 512" in config.read_text()
    assert 'memory = "512M"' in (ground.root / "guests/web1.toml").read_text()


def test_a_build_that_failed_is_tried_again_with_the_same_line(ground: Ground) -> None:
    """Where the host was in the way: the spec is there, and is the same."""
    config = ground.host / "etc/xen/web1.cfg"
    config.parent.mkdir(parents=True)
    config.write_text("name = 'web1'\n")
    ground.ends(127, *CREATE)
    assert config.read_text() == "name = 'web1'\n"
    config.unlink()
    ground.ends(0, *CREATE)


@pytest.mark.parametrize("through", ["link", "folder"])
def test_the_commands_work_from_anywhere(tmp_path: Path, through: str) -> None:
    command = ROOT / "bin/xen-create-image"
    if through == "link":
        (tmp_path / "xen-create-image").symlink_to(command)
        command = tmp_path / "xen-create-image"
    for words, code, said in (
        (["--version"], 0, "xen-tools 4.9.2"),
        (["--help"], 1, "--hostname"),
        (["--hostname=x", "--bogus"], 127, "has no option --bogus"),
    ):
        done = subprocess.run(
            [command, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
