"""What [boot], [guests], [lvm] and [migration] make of a host's files, old and new.

The lines of etch and lenny are those of the seed; a doctor who looks afterwards has nothing to say.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dom0.doctor.facts import read_facts
from pipeline.dom0.doctor.pitfalls import find_pitfalls
from pipeline.dom0.setup import lvm_filter, sxp
from pipeline.dom0.setup.assignments import read_assignments, replace_words, set_assignment
from pipeline.dom0.setup.boot_files import BOOT
from pipeline.dom0.setup.grub import read_entries
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.lvm_files import LVM
from pipeline.dom0.setup.serial_login import render_inittab
from pipeline.dom0.setup.toolstack_files import TOOLSTACK
from pipeline.errors import EnvironmentFault, Finding, PipelineError

MENU_LST = """default\t\t0
timeout\t\t5

### BEGIN AUTOMAGIC KERNELS LIST
## ## Start Default Options ##
## default kernel options
# kopt=root=/dev/sda1 ro

## Xen hypervisor options to use with the default Xen boot option
# xenhopt=

## Xen Linux kernel options to use with the default Xen boot option
# xenkopt=console=tty0

# howmany=all
## ## End Default Options ##

title\t\tXen 3.2-1-i386 / Debian GNU/Linux, kernel 2.6.26-2-xen-686
root\t\t(hd0,0)
kernel\t\t/boot/xen-3.2-1-i386.gz
module\t\t/boot/vmlinuz-2.6.26-2-xen-686 root=/dev/sda1 ro console=tty0
### END DEBIAN AUTOMAGIC KERNELS LIST
"""
XEND = """# -*- sh -*-
#(xend-relocation-server no)
#(xend-relocation-port 8002)
#(xend-relocation-address '')
#(xend-relocation-hosts-allow '')
(vif-script vif-bridge)
(dom0-min-mem 196)
(dom0-cpus 0)
(vncpasswd '')
"""
INITTAB = """id:2:initdefault:
1:2345:respawn:/sbin/getty 38400 tty1
#T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100
T1:23:respawn:/sbin/getty -L ttyS1 9600 vt100
"""
OLD = {
    "boot/grub/menu.lst": MENU_LST,
    "etc/xen/xend-config.sxp": XEND,
    "etc/inittab": INITTAB,
    "etc/lvm/lvm.conf": 'devices {\n    filter = [ "a/.*/" ]\n}\n',
    "etc/lvm/backup/VG0": "",
    "etc/default/xendomains": 'XENDOMAINS_SAVE=/var/lib/xen/save\nXENDOMAINS_MIGRATE=""\n',
}
NEW = {
    "etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=ttyS1"\n',
    "etc/default/grub.d/xen.cfg": 'GRUB_CMDLINE_XEN_DEFAULT="dom0_mem=4G ucode=scan"\n',
    "etc/xen/xl.conf": '## Global XL config file ##\n#autoballoon="auto"\nautoballoon="on"\n',
    "etc/lvm/lvm.conf": 'devices {\n\t# global_filter = [ "a|.*|" ]\n}\n',
    "etc/lvm/backup/VG0": "",
    "etc/default/xendomains": "XENDOMAINS_SAVE=/var/lib/xen/save\nXENDOMAINS_RESTORE=true\n",
}
RELEASES = {"etch": "4.0", "lenny": "5.0.10", "bookworm": "12.11", "trixie": "13.1"}


def make_host(root: Path, suite: str, files: Mapping[str, str] | None = None) -> HostView:
    """A host of that release, as its files say; `files` instead of those it would have."""
    is_old = suite in ("etch", "lenny")
    given = files if files is not None else OLD if is_old else NEW
    for name, text in {"etc/debian_version": RELEASES[suite] + "\n", **given}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not is_old:
        (root / "sbin").mkdir()
        (root / "sbin/init").symlink_to("/lib/systemd/systemd")
    return HostView.of(root)


def settings(**tables: Any) -> HostSettings:
    return HostSettings.model_validate(tables)


def apply(wanted: HostSettings, host: HostView) -> dict[str, str]:
    """The rendered files, put into the host's tree; a second rendering changes nothing."""
    texts = {}
    for part in (BOOT, TOOLSTACK, LVM):
        for file in part.render(wanted, host):
            assert part.has_place(file.path), file.path
            path = host.root / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.link:
                path.symlink_to(file.link)
            elif file.content is None:
                path.unlink()
            else:
                path.write_bytes(file.content)
                texts[file.path] = file.content.decode()
    for part in (BOOT, TOOLSTACK, LVM):
        for file in part.render(wanted, host):
            assert file.link or file.content == texts[file.path].encode(), file.path
    return texts


def changes(old: str, new: str) -> list[str]:
    """Lines that are new, and with a dash those that are gone."""
    before, after = old.splitlines(), new.splitlines()
    gone = [f"-{line}" for line in before if line not in after]
    return gone + [line for line in after if line not in before]


def examine(root: Path) -> list[Finding]:
    facts = read_facts(root, None, is_dom0=True, has_vsyscall=True)
    return find_pitfalls(facts)


def test_lenny_gets_the_lines_of_the_seed_and_no_other_byte_changes(tmp_path: Path) -> None:
    host = make_host(tmp_path, "lenny")
    assert (host.loader, host.toolstack, host.init) == ("grub-legacy", "xm", "sysvinit")
    boot = {"dom0_mem": "256M", "dom0_max_vcpus": 1, "serial": "com2"}
    texts = apply(settings(boot=boot, migration={"hosts": ["192.0.2.7"]}), host)
    assert changes(MENU_LST, texts["/boot/grub/menu.lst"]) == [
        "-# xenhopt=",
        "-# xenkopt=console=tty0",
        "# xenhopt=dom0_mem=256M com2=115200,8n1 console=com2,vga",
        "# xenkopt=console=tty0 console=hvc0",
    ]
    assert changes(XEND, texts["/etc/xen/xend-config.sxp"]) == [
        "-(dom0-min-mem 196)",
        "-(dom0-cpus 0)",
        "(xend-relocation-server yes)",
        "(xend-relocation-port 8002)",
        "(xend-relocation-address '')",
        r"(xend-relocation-hosts-allow '^192\\.0\\.2\\.7$ ^localhost$')",
        "(dom0-min-mem 256)",
        "(dom0-cpus 1)",
    ]
    assert changes(INITTAB, texts["/etc/inittab"]) == [
        "-T1:23:respawn:/sbin/getty -L ttyS1 9600 vt100",
        "#T1:23:respawn:/sbin/getty -L ttyS1 9600 vt100",
        "co:2345:respawn:/sbin/getty -h -L hvc0 115200 ansi",
    ]
    assert [*TOOLSTACK.after(settings(boot=boot), host)] == [("/etc/init.d/xend", "restart")]


def test_etch_leaves_the_serial_line_to_dom0(tmp_path: Path) -> None:
    host = make_host(tmp_path, "etch")
    wanted = settings(boot={"dom0_mem": "256M", "dom0_max_vcpus": 1, "xencons": "tty6"})
    texts = apply(wanted, host)
    assert "\n# xenhopt=dom0_mem=256M\n" in texts["/boot/grub/menu.lst"]
    assert "\n# xenkopt=console=tty0 xencons=tty6\n" in texts["/boot/grub/menu.lst"]
    assert "/etc/inittab" not in texts
    shared = settings(boot={"serial": "com2"})
    (found,) = [f for f in BOOT.check(shared, host, host.root) if f.level == "warning"]
    assert 'xencons = "tty6"' in found.hint


def test_bookworm_gets_a_file_of_ours_that_leaves_the_others_alone(tmp_path: Path) -> None:
    host = make_host(tmp_path, "bookworm")
    boot = {"dom0_mem": "1G", "dom0_max_vcpus": 2, "serial": "com1", "serial_speed": 9600}
    texts = apply(settings(boot=boot), host)
    script = texts["/etc/default/grub.d/zz-domu-xen.cfg"]
    assert (
        'GRUB_CMDLINE_XEN="$kept dom0_mem=1024M,max:1024M dom0_max_vcpus=2 dom0_vcpus_pin '
        'com1=9600,8n1 console=com1,vga"\n'
    ) in script
    assert 'GRUB_CMDLINE_LINUX_XEN_REPLACE="$kept console=tty0 console=hvc0"\n' in script
    assert texts["/etc/xen/xl.conf"] == NEW["etc/xen/xl.conf"].replace('"on"', '"off"')
    assert [*BOOT.after(settings(), host)] == [("update-grub",)]


@pytest.mark.parametrize(("suite", "folder"), [("bookworm", "/lib"), ("trixie", "/usr/lib")])
def test_systemd_gets_a_login_on_hvc0_and_loses_the_one_on_xens_port(
    tmp_path: Path, suite: str, folder: str
) -> None:
    host = make_host(tmp_path, suite)
    wants = tmp_path / "etc/systemd/system/getty.target.wants"
    wants.mkdir(parents=True)
    for port in ("ttyS0", "ttyS1"):
        (wants / f"serial-getty@{port}.service").symlink_to("/lib/x@.service")
    apply(settings(boot={"serial": "com2"}), host)
    assert sorted(path.name for path in wants.iterdir()) == [
        "serial-getty@hvc0.service",
        "serial-getty@ttyS0.service",
    ]
    link = (wants / "serial-getty@hvc0.service").readlink()
    assert str(link) == f"{folder}/systemd/system/serial-getty@.service"


@pytest.mark.parametrize("suite", RELEASES)
def test_the_doctor_has_nothing_to_say_afterwards(tmp_path: Path, suite: str) -> None:
    host = make_host(tmp_path, suite)
    before = {finding.subject for finding in examine(tmp_path)}
    assert {"dom0's memory", "LVM"} <= before
    serial = {"xencons": "tty6"} if suite == "etch" else {"serial": "com2"}
    apply(
        settings(
            boot={"dom0_mem": "512M", "dom0_max_vcpus": 1, **serial},
            lvm={"groups": ["VG0"]},
            guests={"save": True},
        ),
        host,
    )
    assert examine(tmp_path) == []


def test_what_an_administrator_wrote_stays_but_for_the_same_keys() -> None:
    line = "noreboot dom0_mem=512M,max:1G com1=9600 console=com1"
    assert replace_words(line, ["dom0_mem=1G", "console=com2,vga"]) == (
        "noreboot com1=9600 dom0_mem=1G console=com2,vga"
    )


def test_options_of_update_grub_are_found_between_its_marks_only(tmp_path: Path) -> None:
    several = MENU_LST.replace("# xenhopt=\n", "# xenhopt=noreboot\n# xenhopt=dom0_mem=1G\n")
    misleading = f"# xenhopt=dom0_mem=7G\n{several}"
    host = make_host(tmp_path, "lenny", {**OLD, "boot/grub/menu.lst": misleading})
    text = apply(settings(boot={"dom0_mem": "256M"}), host)["/boot/grub/menu.lst"]
    assert changes(misleading, text) == [
        "-# xenhopt=noreboot",
        "-# xenhopt=dom0_mem=1G",
        "# xenhopt=noreboot dom0_mem=256M",
    ]
    without = MENU_LST.replace("# xenkopt=console=tty0\n", "")
    (tmp_path / "boot/grub/menu.lst").write_text(without)
    text = apply(settings(boot={"serial": "com1"}), host)["/boot/grub/menu.lst"]
    assert "# xenkopt=console=tty0 console=hvc0\n\n## ## End Default" in text
    (tmp_path / "etc/inittab").unlink()
    with pytest.raises(EnvironmentFault, match="/etc/inittab is not there"):
        [*BOOT.render(settings(boot={"serial": "com1"}), host)]
    (tmp_path / "boot/grub/menu.lst").write_text("title mine\n")
    with pytest.raises(PipelineError, match="no options of update-grub"):
        [*BOOT.render(settings(boot={"dom0_mem": "256M"}), host)]


def test_a_menu_that_was_written_by_hand_is_read_by_its_entries() -> None:
    entry = "title Xen\nkernel /boot/xen-3.2.gz dom0_mem=256M\nmodule /vmlinuz-2.6 ro quiet\n"
    assert read_entries(entry) == ("dom0_mem=256M", "ro quiet")
    assert read_entries("title Linux\nkernel /vmlinuz-2.6 ro\n") is None


def test_inittabs_getty_takes_the_place_of_one_that_would_fight_with_it() -> None:
    ours = "co:2345:respawn:/sbin/getty -h -L hvc0 115200 ansi"
    for old in ("co:23:respawn:/sbin/getty -L hvc0 9600 vt100", "1:2345:respawn:/sbin/getty hvc0"):
        text = f"a:1:once:/bin/true\n{old}\n2:23:respawn:/sbin/getty 38400 tty2\n"
        assert render_inittab(text, "ttyS0", 115200) == text.replace(old, ours)
    assert render_inittab("x:1:once:/bin/true", "ttyS0", 115200).endswith(f"true\n{ours}\n")


def test_xendomains_saves_moves_or_shuts_down(tmp_path: Path) -> None:
    host = make_host(tmp_path, "bookworm")
    text = apply(settings(guests={"migrate_to": "peer"}), host)["/etc/default/xendomains"]
    values = read_assignments(text)
    assert (values["XENDOMAINS_MIGRATE"], values["XENDOMAINS_SAVE"]) == ("peer", "")
    assert values["XENDOMAINS_AUTO"] == "/etc/xen/auto"
    text = apply(settings(guests={"save": True}), host)["/etc/default/xendomains"]
    assert read_assignments(text)["XENDOMAINS_SAVE"] == "/var/lib/xen/save"
    (tmp_path / "etc/default/xendomains").unlink()
    with pytest.raises(EnvironmentFault, match="xendomains is not there"):
        [*TOOLSTACK.render(settings(guests={}), host)]


def test_ssh_learns_of_the_hosts_that_guests_move_to(tmp_path: Path) -> None:
    host = make_host(tmp_path, "trixie")
    texts = apply(settings(migration={"hosts": ["peer", "192.0.2.7"]}), host)
    text = texts["/etc/ssh/ssh_config.d/domu-migration.conf"]
    assert 'Match localuser root host "peer,192.0.2.7"\n' in text


GROUPS = ("VG0", "my-vg.1")
OURS = (
    "r|^/dev/VG0/|",
    "r|^/dev/mapper/VG0-[^-]|",
    "r|^/dev/my-vg[.]1/|",
    "r|^/dev/mapper/my--vg[.]1-[^-]|",
)


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ("", ()),
        ('devices {\n\tfilter = [ "a/.*/" ]\n}\n', ()),
        ('devices{filter="a|.*|"}', ()),
        ('devices/filter = [ "r|^/dev/sdb[#}]|" ]\n', ("r|^/dev/sdb[#}]|",)),
        (
            'devices {\n filter = [ "a|^/dev/md|", # and ] "no\n  "r|.*|" ]\n}\n',
            ("a|^/dev/md|", "r|.*|"),
        ),
        ('log { filter = 3 }\n# devices { filter = [ "r|x|" ] }\n', ()),
        ('devices {\n filter = [ "r|\\"|" ]\n}\n', ('r|"|',)),
    ],
)
def test_a_filter_that_is_there_stays_behind_ours(old: str, kept: tuple[str, ...]) -> None:
    text = lvm_filter.set_filter(old, "filter", GROUPS)
    found = lvm_filter.find_filter(text, "filter")
    assert found is not None
    assert found.patterns == (*OURS, *kept)
    assert lvm_filter.set_filter(text, "filter", GROUPS) == text
    rest = text[: found.start] + text[found.end :]
    assert all(
        line in rest for line in old.splitlines() if "filter" not in line and '"' not in line
    )


def test_a_pattern_that_takes_guests_volumes_back_is_found(tmp_path: Path) -> None:
    assert lvm_filter.find_acceptance([*OURS, "r|/dev/cdrom|", "a|.*|"]) == "a|.*|"
    assert lvm_filter.find_acceptance([*OURS, "a|^/dev/sd|", "r|.*|"]) == ""
    assert lvm_filter.find_acceptance([*OURS, "a|^/dev/sd|"]) == ""
    host = make_host(tmp_path, "bookworm")
    # the doctor does not take such a filter for one
    text = 'devices {\n\tglobal_filter = [ "r|^/dev/VG0/|", "a|.*|" ]\n}\n'
    (host.root / "etc/lvm/lvm.conf").write_text(text)
    assert "LVM" in {finding.subject for finding in examine(host.root)}


def test_a_filter_in_lvmlocal_is_the_one_that_counts(tmp_path: Path) -> None:
    host = make_host(tmp_path, "bookworm")
    (host.root / "etc/lvm/lvmlocal.conf").write_text('devices { global_filter = "a|.*|" }\n')
    (file,) = LVM.render(settings(lvm={"groups": ["VG0"]}), host)
    assert (file.path, b"VG0" in (file.content or b"")) == ("/etc/lvm/lvmlocal.conf", True)


def test_of_two_settings_xend_takes_the_first_and_so_do_we() -> None:
    text = "(dom0-cpus 0)\n( dom0-min-mem\t 196 ) # low\n(dom0-min-mem 512)\n#(x 1)\n(x)\n"
    assert sxp.read_sxp(text) == {"dom0-cpus": "0", "dom0-min-mem": "196", "x": ""}
    new = sxp.set_sxp(text, "dom0-min-mem", "256")
    assert new == text.replace("( dom0-min-mem\t 196 )", "(dom0-min-mem 256)")


_LINES: st.SearchStrategy[str] = st.lists(
    st.sampled_from(
        ['A="1"', "A=2 # note", "#A=3", "B='A=4'", "", "(a 1)", "#(a 2)", "(a '3 4')", "( b )", "x"]
    )
).map("\n".join)


def settings_lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if not re.match(r'A=|\( ?a |A="|\(a', line))


@given(_LINES, st.sampled_from(["", "off", "/var/lib/xen/save", "peer --live"]))
def test_whatever_is_set_is_read_back_and_other_lines_stay(text: str, value: str) -> None:
    shell, config = set_assignment(text, "A", value), sxp.set_sxp(text, "a", value)
    assert read_assignments(shell)["A"] == value
    assert sxp.read_sxp(config)["a"] == value
    for new in (shell, config):
        assert [*settings_lines(new)] == [*settings_lines(text)]
    assert set_assignment(shell, "A", value) == shell
    assert sxp.set_sxp(config, "a", value) == config
