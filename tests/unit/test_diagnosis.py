"""What is told of a program that failed: outputs of real failures, and their headlines."""

import pytest

from pipeline.diagnosis import explain_failure
from pipeline.errors import CommandFailed

DIB = ["bash", "/x/rootfs-web1/dib-lib/disk-image-create", "-n", "-t", "raw", "domu"]
UNDONE = "".join(
    f"Unmount /x/room/dib/dib_build.ErdsxbCm/mnt/{name}\n"
    for name in ("tmp/in_target.d", "sys", "proc", *(f"dev/{at}" for at in range(20)), "dev")
)
PACKAGE = """\
dib-run-parts 05-domu-static completed, 13 ms
dib-run-parts Running /tmp/in_target.d/install.d/10-domu-packages
Reading package lists...
Building dependency tree...
Reading state information...
E: Unable to locate package nosuchpkg-xyz
"""
ZONE = """\
dib-run-parts 50-ssh-server completed, 111 ms
dib-run-parts Running /tmp/in_target.d/install.d/50-timezone-locale-zone
timezone-locale: no such zone: Europe/Pariss (old names: package tzdata-legacy)
"""
LOCALE = """\
dib-run-parts Running /tmp/in_target.d/install.d/51-timezone-locale-lang
Setting up locales (2.36-9+deb12u14) ...
Generation complete.
timezone-locale: no such locale: xx_XX.UTF-8 (one of /usr/share/i18n/SUPPORTED)
"""
TRACED = """\
dib-run-parts Running /tmp/in_target.d/post-install.d/50-fail
+ echo 'failing: cannot do it'
failing: cannot do it
+ exit 3
"""
SILENT = """\
Created symlink /etc/systemd/system/sockets.target.wants/x.socket -> /lib/x.socket.
dib-run-parts 50-domu-network-networkd completed, 76 ms
dib-run-parts Running /tmp/in_target.d/post-install.d/50-fail
+ false
"""
DPKG = """\
dib-run-parts Running /tmp/in_target.d/post-install.d/50-fail
Setting up sadpkg (1) ...
the postinst says no
dpkg: error processing package sadpkg (--install):
 installed sadpkg package post-installation script subprocess returned error exit status 7
Errors were encountered while processing:
 sadpkg
E: Sub-process /usr/bin/dpkg returned an error code (1)
"""


def explained(argv: list[str], status: int, output: str) -> CommandFailed:
    error = CommandFailed(argv, status=status, output=output, log="/x/logs/web1/rootfs.log")
    explain_failure(error)
    return error


@pytest.mark.parametrize(
    ("output", "brief", "hint"),
    [
        (
            PACKAGE,
            "E: Unable to locate package nosuchpkg-xyz (install.d/10-domu-packages ended with",
            "check `packages`",
        ),
        (ZONE, "timezone-locale: no such zone: Europe/Pariss (", "below /usr/share/zoneinfo"),
        (LOCALE, "timezone-locale: no such locale: xx_XX.UTF-8 (", "/usr/share/i18n/SUPPORTED"),
        (TRACED, "failing: cannot do it (post-install.d/50-fail ended with status 1)", "elements"),
        (SILENT, "post-install.d/50-fail ended with status 1", "script of one of the elements"),
        (
            DPKG,
            "dpkg: error processing package sadpkg (--install): installed sadpkg package "
            "post-installation script subprocess returned error exit status 7 (",
            "a script of that package failed",
        ),
    ],
    ids=["package", "zone", "locale", "traced", "silent", "dpkg"],
)
def test_the_line_that_counts_is_the_headline_of_an_element(
    output: str, brief: str, hint: str
) -> None:
    error = explained(DIB, 1, output + UNDONE)
    assert error.brief.startswith(brief)
    assert hint in error.hint
    assert "Unmount" not in error.details and "\n+ " not in error.details
    assert "completed, " not in error.details


DEBOOTSTRAP = """\
I: Resolving dependencies of base packages...
I: Checking component main on http://mirror/debian...
E: Couldn't find these debs: nosuchpkg-xyz
"""


@pytest.mark.parametrize(
    ("argv", "output", "brief"),
    [
        (
            ["debootstrap", "--variant=minbase"],
            DEBOOTSTRAP,
            "E: Couldn't find these debs: nosuchpkg-xyz (debootstrap ended with status 1)",
        ),
        (
            ["/x/.venv/bin/python", "-m", "pipeline.bootstrap.worker", "/x/order.json"],
            "Setting up x\nworker: no room\n",
            "worker: no room (pipeline.bootstrap.worker ended with status 1)",
        ),
        (["/x/no-words"], "", "no-words ended with status 1"),
        (
            ["gpgv"],
            "gpgv: Signature made today\ngpgv: Can't check signature: unknown key\n",
            "gpgv ended with status 1: the mirror is signed by a key that the keyring does not",
        ),
        (
            ["tar"],
            "tar: x: Cannot open: Permission denied\n"
            "tar: Exiting with failure status due to previous errors\n",
            "tar: x: Cannot open: Permission denied (tar ended with status 1)",
        ),
    ],
    ids=["debootstrap", "module", "silent", "known", "tar"],
)
def test_the_line_that_counts_is_the_headline_of_a_program(
    argv: list[str], output: str, brief: str
) -> None:
    error = explained(argv, 1, output)
    assert error.brief.startswith(brief)
    assert error.hint


def test_without_a_log_there_is_no_word_of_it() -> None:
    error = CommandFailed(["true"], status=1, output="")
    explain_failure(error)
    assert not error.hint
