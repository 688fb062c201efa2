"""Role scripts of xen-tools on a real tree: those of its package, and one that wants out."""

import os
import shlex
from pathlib import Path

import pytest

from tests.conftest import require
from tests.elements.rootfs_build import Build, Host, build_rootfs

pytestmark = pytest.mark.integration

SHIPPED = Path("/etc/xen-tools/role.d")
# what the scripts of 4.9.2 end with on a bookworm tree: with the code of their last command
ENDS = {"cfengine": 0, "editor": 0, "resolv": 0, "sudoers": 0, "tmpfs": 0, "udev": 0}
# these install much: X, compilers; linda has left Debian, and is the last that builder installs
HEAVY = {"builder": 100, "gdm": 0, "minimal": 0, "puppet": 0, "xdm": 0}


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return path


def run_roles(host: Host, work: Path, *scripts: Path, is_alone: bool = False, **more: str) -> Build:
    settings = {
        "DIB_DOMU_BUILD_SOURCES": str(host.sources),
        "DIB_DOMU_APT_LISTS": str(host.lists),
        "DIB_XEN_TOOLS_ROLES_SCRIPTS": shlex.join(map(str, scripts)),
        "DIB_XEN_TOOLS_ROLES_SETTINGS": "dist=bookworm verbose=1 'words=two words'",
        **more,
    }
    return build_rootfs(
        *(host, work, ["xen-tools-roles"]),
        settings=settings,
        elements_path=[scripts[0].parent],
        is_alone=is_alone,
    )


def run_shipped(host: Host, tmp_path: Path, ends: dict[str, int]) -> Build:
    """Each script in turn, and what it ended with, in one build."""
    require(SHIPPED.is_dir(), "xen-tools' role scripts")
    each = " ".join(str(SHIPPED / name) for name in ends)
    driver = write_script(
        tmp_path / "roles/driver",
        f'for role in {each}; do "$role" "$1"; echo "${{role##*/}} $?" >>"$1/etc/ends"; done\n',
    )
    (tmp_path / "sed.d/etc").mkdir(parents=True)
    (tmp_path / "sed.d/etc/issue.sed").write_text("s/Debian/Our/\n")
    build = build_rootfs(
        *(host, tmp_path / "room", ["xen-tools-roles"]),
        settings={
            "DIB_DOMU_BUILD_SOURCES": str(host.sources),
            "DIB_DOMU_APT_LISTS": str(host.lists),
            "DIB_XEN_TOOLS_ROLES_SCRIPTS": str(driver),
            "DIB_XEN_TOOLS_ROLES_SETTINGS": "verbose=1",
            "DIB_XEN_TOOLS_ROLES_SED": str(tmp_path / "sed.d"),
        },
        elements_path=[driver.parent, SHIPPED],
        timeout_s=900,
    )
    assert build.returncode == 0, build.log[-3000:]
    lines = (line.split() for line in build.text("etc/ends").splitlines())
    assert {name: int(code) for name, code in lines} == ends, build.log[-6000:]
    return build


def test_the_scripts_of_the_package_run_as_they_are(host: Host, tmp_path: Path) -> None:
    build = run_shipped(host, tmp_path, ENDS)
    members = build.members()
    assert "usr/bin/sudo" in members
    assert "Our" in build.text("etc/issue")
    assert build.text("etc/fstab").count("tmpfs") >= 3
    assert build.text("etc/resolv.conf.old").startswith("nameserver 192.168.1.1")
    assert "cfengine2' has no installation candidate" in build.log
    assert "cannot stat '/etc/sudoers'" in build.log, "the host's own is not in the cage"
    assert "usr/sbin/policy-rc.d" not in members


@pytest.mark.matrix
def test_the_heavy_scripts_of_the_package_run_as_they_are(host: Host, tmp_path: Path) -> None:
    build = run_shipped(host, tmp_path, HEAVY)
    members = build.members()
    assert {"usr/bin/dpkg-buildpackage", "usr/bin/puppet", "usr/bin/nvi"} <= members.keys()
    assert "Unable to locate package linda" in build.log


def test_a_script_gets_the_tree_its_arguments_and_its_variables(host: Host, tmp_path: Path) -> None:
    script = write_script(
        tmp_path / "roles/mine",
        ". /usr/share/xen-tools/common.sh\n"
        'assert "$LINENO" "$1"\n'
        'printf "%s\\n" "$#" "$2" "$3" "$dist" "$words" >"$1/etc/mine"\n'
        "disableStartStopDaemon $1; chroot $1 start-stop-daemon >>$1/etc/mine\n"
        "enableStartStopDaemon $1; isDeb $1 && echo deb >>$1/etc/mine\n"
        "perl -e 'use Getopt::Long; print qq(perl\\n)' >>$1/etc/mine\n",
    )
    build = run_roles(
        *(host, tmp_path / "room", script), DIB_XEN_TOOLS_ROLES_ARGUMENTS="--site 'north wing'"
    )
    assert build.returncode == 0, build.log[-3000:]
    fake = "Warning: Fake start-stop-daemon called, doing nothing"
    wanted = ["3", "--site", "north wing", "bookworm", "two words", fake, "deb", "perl"]
    assert build.text("etc/mine").splitlines() == wanted
    assert not [name for name in build.members() if name.endswith(".REAL")]


def test_a_script_that_fails_ends_the_build(host: Host, tmp_path: Path) -> None:
    script = write_script(tmp_path / "roles/mine", "echo it cannot be done >&2\nexit 3\n")
    build = run_roles(host, tmp_path / "room", script)
    assert build.returncode != 0
    assert "it cannot be done" in build.log
    assert not build.tar.exists()


def test_a_script_does_not_reach_the_host(host: Host, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("Kanari3\n")
    script = write_script(
        tmp_path / "roles/mine",
        f'tell() {{ if eval "$1" 2>/dev/null; then echo "$1" >>$2/etc/reached; fi; }}\n'
        f'for way in "grep -q Kanari3 {secret}" "touch {tmp_path}/mark" "touch /usr/mark"'
        ' "touch /etc/mark" "test -e /root/.ssh" "test -e /home" "mknod /tmp/sda b 8 0"'
        f' "kill -0 {os.getpid()}" "mount -t ext4 /dev/vda /mnt" "test -e /etc/shadow"; do\n'
        'tell "$way" "$1"\ndone\n: >>$1/etc/reached\n',
    )
    build = run_roles(host, tmp_path / "room", script, is_alone=True)
    assert build.returncode == 0, build.log[-3000:]
    assert build.text("etc/reached") == ""
    assert not (tmp_path / "mark").exists()
