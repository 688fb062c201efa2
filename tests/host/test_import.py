"""`doit import` as it is typed: folders, Debian's own example configurations, all mistakes."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import require
from tests.torture.program import Ground

pytestmark = pytest.mark.integration

WEB = """\
name = "web1"
kernel = "/boot/vmlinuz-6.1.0-9-amd64"
memory = 512
vif = [ "mac=00:16:3E:12:34:56,bridge=xenbr0" ]
cpu_weight = 512
pci = [ "01:00.0" ]
"""
CODE = "kernel = '/k'\nimport os\nos.system('touch /tmp/made-by-import')\n"
PACKAGES = ("xen-utils-common", "xen-tools")


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground.make(tmp_path / "ground", "one")


@pytest.fixture
def folder(ground: Ground) -> Path:
    """An /etc/xen: a good guest, one that is code, one in latin-1, what is no guest."""
    folder = ground.root / "xen"
    (folder / "auto").mkdir(parents=True)
    (folder / "web1.cfg").write_text(WEB)
    (folder / "auto/web1.cfg").symlink_to("../web1.cfg")
    (folder / "code.cfg").write_text(CODE)
    (folder / "latin.cfg").write_bytes("name = 'caf\u00e9'\n".encode("latin-1"))
    (folder / "xl.conf").write_text('vif.default.script="vif-bridge"\n')
    (folder / "servers").write_text("[root]\nsize=1G\ntype=ext3\nmountpoint=/\n")
    return folder


def test_a_folder_is_taken_and_a_bad_file_stops_itself_alone(ground: Ground, folder: Path) -> None:
    guests = ground.root / "guests"
    said = ground.ends(2, "import", str(folder), "dry=yes")
    assert not (guests / "web1.toml").exists()
    said = ground.ends(2, "import", str(folder))
    assert "2 of 5 files made no spec" in said
    assert "line 2: this is program code" in said
    assert "iconv -f latin1" in said
    assert "no guest's configuration, left alone" in said
    assert not Path("/tmp/made-by-import").exists()
    spec = tomllib.loads((guests / "web1.toml").read_text())
    assert spec["suite"] == "bookworm"
    assert (spec["memory"], spec["bridge"], spec["autostart"]) == ("512M", "xenbr0", True)
    assert "pci = 01:00.0: a device of one host" in (guests / "web1.toml").read_text()
    ground.ends(0, "why", "name=web1")


def test_files_are_named_one_by_one_and_specs_replaced_on_demand(
    ground: Ground, folder: Path
) -> None:
    guests, web = ground.root / "guests", str(folder / "web1.cfg")
    ground.ends(0, "import", web)
    said = ground.ends(2, "import", web)
    assert "replace=yes" in said
    before = (guests / "web1.toml").read_text()
    (folder / "web1.cfg").write_text(WEB.replace("512\nvif", "1024\nvif"))
    ground.ends(0, "import", web, "replace=yes")
    assert (guests / "web1.toml").read_text() == before.replace('memory = "512M"', 'memory = "1G"')
    ground.ends(0, "import", web, "name=web2", "suite=trixie")
    assert tomllib.loads((guests / "web2.toml").read_text())["suite"] == "trixie"
    said = ground.ends(2, "import", web, str(folder / "servers"))
    assert 'partitions = "' in said
    for wrong in (["file=/nonexistent.cfg"], [str(folder / "xl.conf")], [web, "suite=nope"], []):
        said = ground.ends(2, "import", *wrong)
        assert "Traceback" not in said


def test_programs_get_the_report_as_json(ground: Ground, folder: Path) -> None:
    said = ground.ends(0, "import", str(folder / "web1.cfg"), "json=yes", "dry=yes")
    answer = json.loads(said[said.index("{") :])  # what is for people is on standard error
    assert answer["kind"] == "xl"
    rows = {row["subject"]: row["code"] for row in answer["findings"]}
    assert (rows["cpu_weight"], rows["pci"]) == ("taken", "cannot be said")
    assert tomllib.loads(answer["text"])["memory"] == "512M"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Debian's packages have in /etc, unpacked."""
    require(bool(shutil.which("apt-get")), "apt-get")
    folder = tmp_path_factory.mktemp("shipped")
    command = ["apt-get", "download", *PACKAGES]
    got = subprocess.run(command, cwd=folder, check=False, capture_output=True)
    require(got.returncode == 0, "a mirror with xen-utils-common and xen-tools")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder


def test_the_examples_that_debian_ships_become_specs(ground: Ground, shipped: Path) -> None:
    examples = sorted((shipped / "etc/xen").glob("xlexample*"))
    assert len(examples) >= 3
    said = ground.ends(0, "import", *map(str, examples), "suite=bookworm")
    for path in examples:
        name = path.name.replace("xl", "", 1)
        code, said = ground.run("why", f"name={name}")
        assert code == 0, (name, said)
    no_guests = [*(shipped / "etc/xen").glob("*.conf"), *(shipped / "etc/xen/scripts").iterdir()]
    for other in [*no_guests, *shipped.glob("usr/share/doc/xen-*/examples/*")]:
        if other.is_file():
            code, said = ground.run("import", str(other))
            assert code == 2, (other, said)
            assert "Traceback" not in said
    said = ground.ends(0, "import", str(shipped / "etc/xen-tools/partitions.d"))
    assert "mountpoint = /home" in said
    said = ground.ends(0, "import", str(shipped / "etc/xen-tools/xen-tools.conf"), "dry=yes")
    assert 'size = "4G"' in said
