"""xen-tools' own command lines: what they say, what they become."""

from pathlib import Path

import pytest

from pipeline.commands.help import exit_code_of
from pipeline.commands.xen_tools_line import answer_program
from pipeline.errors import PipelineError, UsageError
from pipeline.spec.xen_create_image.grammar import read_line
from tests.unit.test_kernel_image import NOTES, make_elf

CREATE = "xen-create-image"
# ../docs/reference/xen-create-image.md has both, as people know them
SEED_4 = (
    "--hostname test-drbd --kernel /boot/vmlinuz-2.6.26-2-xen-686"
    " --initrd /boot/initrd.img-2.6.26-2-xen-686 --dist lenny"
    " --mirror http://monmiroir:9999/debian/ --dhcp  --lvm VG0 --size 4G --role udev"
).split()
SEED_3 = (
    "--hostname montest --kernel /boot/vmlinuz-2.6.18-6-xen-686"
    " --initrd /boot/initrd.img-2.6.18-6-xen-686 --debootstrap --dist etch"
    " --mirror monmiroir:9999 --dhcp --lvm VG0 --size 4G"
).split()


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without xen-tools' files."""
    monkeypatch.setenv("DOMU_ROOT", str(tmp_path))
    (tmp_path / "etc/xen-tools").mkdir(parents=True)
    return tmp_path / "etc/xen-tools"


def become(*arguments: str, program: str = CREATE) -> dict[str, str]:
    line = answer_program(program, arguments)
    assert isinstance(line, list)
    assert line[0] == program
    return dict(text.split("=", 1) for text in line[1:])


@pytest.mark.parametrize(
    ("seed", "differs"),
    [
        (
            SEED_4,
            {"name": "test-drbd", "suite": "lenny", "mirror": "http://monmiroir:9999/debian/"},
        ),
        (
            SEED_3,
            {
                "name": "montest",
                "suite": "etch",
                "mirror": "monmiroir:9999",
                "bootstrap": "debootstrap",
            },
        ),
    ],
)
def test_the_two_lines_that_everybody_knows(seed: list[str], differs: dict[str, str]) -> None:
    kernel, initrd = seed[3], seed[5]
    same = {"kernel": kernel, "initrd": initrd, "dhcp": "yes", "lvm": "VG0", "size": "4G"}
    given = become(*seed)
    assert given == {**same, **differs, "hostname": differs["name"], "genpass": "yes"}


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ("--hostname=a --SIZE 4G", {"hostname": "a", "size": "4G"}),
        ("-hostname a +size=4G", {"hostname": "a", "size": "4G"}),
        ("--hostn a --nodh --nopy", {"hostname": "a", "dhcp": "0", "pygrub": "0"}),
        ("--no-dhcp --no-accounts", {"dhcp": "0", "accounts": "0"}),
        ("--ip 10.0.0.5 --ip=10.0.0.6", {"ip": "10.0.0.5,10.0.0.6"}),
        ("--size 1G --size 2G", {"size": "2G"}),
        ("--role-args --verbose", {"role-args": "--verbose"}),
        ("--extension --force", {"extension": "", "force": "1"}),
        ("--extension cfg", {"extension": "cfg"}),
        ("--genpass 0", {"genpass": "0"}),
        ("--debootstrap", {"debootstrap": "1"}),
        ("--debootstrap-c x", {"debootstrap-cmd": "x"}),
        ("--copy /srv/tree --tar=x", {"copy": "/srv/tree", "tar": "x"}),
    ],
)
def test_options_are_read_as_getopt_long_reads_them(typed: str, options: dict[str, str]) -> None:
    assert read_line(CREATE, typed.split()).options == options


def test_words_stand_anywhere_and_two_dashes_end_the_options() -> None:
    typed = read_line("xen-delete-image", ["a", "--lvm", "VG0", "b", "-", "--", "--test", "c"])
    assert typed.words == ("a", "b", "-", "--test", "c")
    assert typed.options == {"lvm": "VG0"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--nosuch", "no option --nosuch"),
        ("--s 4G", "--s could be --scsi"),
        ("--cop x", "--cop could be --copy-hosts, --copyhosts"),
        ("--size", "--size needs a value"),
        ("--size=", "--size needs a value"),
        ("--dhcp=1", "--dhcp takes no value"),
        ("--genpass yes", "'yes' is not a number"),
        ("--", "which guest?"),
        ("web1 --dhcp", "web1: xen-create-image takes options"),
        ("--hostname a --evms x", "evms"),
        ("--hostname a --password x", "seen by every user"),
        ("--hostname a --config /nowhere", "no file /nowhere"),
    ],
)
def test_a_wrong_line_is_refused_in_a_line(typed: str, said: str) -> None:
    with pytest.raises(PipelineError) as refused:
        answer_program(CREATE, typed.split())
    assert said in f"{refused.value} {refused.value.details} {refused.value.findings}"


def test_the_file_stands_below_the_line_and_that_of_config_above_it(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (host / "xen-tools.conf").write_text(
        "dir = /home/xen\nlvm = vg9\nsize = 3G\nmemory = 256M\nnetmask = 255.255.255.0\n"
        "gateway = 10.0.0.1\nfs = ext4\nimage = sparse\nkernel = /boot/vmlinuz-`uname -r`\n"
        "genpass = 0\n"
    )
    (host / "mine.conf").write_text("size = 5G\n")
    given = become("--hostname", "a", "--ip", "10.0.0.5", "--size", "4G")
    assert given["lvm"] == "vg9"
    assert (given["size"], given["memory"]) == ("4G", "256M")
    assert (given["address"], given["netmask"]) == ("10.0.0.5", "255.255.255.0")
    assert (given["gateway"], given["genpass"]) == ("10.0.0.1", "no")
    assert "image" not in given
    said = capsys.readouterr().out
    assert f"from {host}/xen-tools.conf: lvm, size, memory, gateway, fs, image; not kernel" in said
    given = become("--hostname", "a", "--dhcp", "--dir", "/srv/xen", "--config", "mine.conf")
    assert (given["size"], given["dhcp"]) == ("5G", "yes")
    assert not {"lvm", "gateway", "netmask", "address"} & set(given)
    assert given["image"] == "sparse"


def test_a_kernel_file_that_can_be_entered_as_pvh_makes_the_guest_pvh(tmp_path: Path) -> None:
    for name, is_pvh in (("pvh", True), ("pv", False)):
        (tmp_path / name).write_bytes(make_elf(NOTES if is_pvh else NOTES[:2]))
        given = become("--hostname", "a", "--dhcp", "--kernel", str(tmp_path / name))
        assert given.get("type") == ("pvh" if is_pvh else None)
    given = become(*f"--hostname a --dhcp --type pv --kernel {tmp_path}/pvh".split())
    assert given["type"] == "pv"


def test_settings_say_how_and_not_what() -> None:
    given = become("--hostname", "a", "--dhcp", "--force", "--boot", "--genpass_len", "9")
    assert (given["replace"], given["start"], given["genpass_len"]) == ("yes", "yes", "9")
    given = become("--hostname", "a", "--dhcp", "--noforce", "--noboot", "--passwd")
    assert not {"replace", "start"} & set(given)
    assert (given["root_password_file"], given["genpass"]) == ("-", "no")


def test_the_other_programs_lines() -> None:
    deleted = become(*"--lvm VG0 a --hostname=b --dry a".split(), program="xen-delete-image")
    assert deleted == {"name": "a,b", "dry": "yes"}
    assert become("a", "b", program="xen-update-image") == {"name": "a,b"}
    listed = become("--test=/x", "--extension=", program="xen-list-images")
    assert listed == {"folder": "/x", "extension": ""}
    for program in ("xen-delete-image", "xen-update-image"):
        with pytest.raises(UsageError, match="which guests"):
            answer_program(program, [])


@pytest.mark.parametrize(
    "program", [CREATE, "xen-list-images", "xen-delete-image", "xen-update-image"]
)
def test_help_and_version_are_answered_with_their_codes(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer_program(program, ["--help"]) == 1
    assert answer_program(program, ["--man"]) == 1
    assert "--extension" in capsys.readouterr().out or program == "xen-update-image"
    assert answer_program(program, ["--version"]) == 0
    assert "4.9.2" in capsys.readouterr().out


def test_what_fails_ends_with_their_code() -> None:
    assert [exit_code_of([CREATE], code) for code in (0, 1, 2, 130)] == [0, 127, 127, 130]
    assert exit_code_of(["create"], 2) == 2
