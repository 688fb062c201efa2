"""Maintainer scripts in the tree: preinst of what is unpacked, then dpkg configures.

The environment of a preinst is that of dpkg(1), "Environment"; deb-preinst(5) says when it runs.
dpkg runs it before it unpacks the package, here the files are there already, as mmdebstrap has it
for the essential packages: a script that is called as `install`, without an older version, finds
nothing of an older version to take away.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.bootstrap.database import ADMIN, Control, remove_control_files, write_control_files
from pipeline.process import run
from pipeline.walls.beneath import Beneath
from pipeline.walls.cage import caged_script

_DPKG = ("dpkg", "--force-unsafe-io")
_STARTER = "sbin/start-stop-daemon"


class Chroot:
    """The tree as a place to run its own programs; what they print is printed.

    Each runs with the tree as its root, in namespaces that end with it; `lent` are files that it
    sees at a path of the tree.
    """

    def __init__(self, tree: Path, *, epoch: int, lent: Sequence[tuple[Path, str]] = ()) -> None:
        self.tree = tree
        self._lent = lent
        self._env = {
            "DEBIAN_FRONTEND": "noninteractive",
            "DEBCONF_NONINTERACTIVE_SEEN": "true",
            "SOURCE_DATE_EPOCH": str(epoch),
            "HOME": "/root",
            "TMPDIR": "/tmp",  # the caller's is a folder of the host
        }

    def run(self, argv: Sequence[str], **env: str) -> str:
        """Run one of its programs; raises CommandFailed."""
        return run(
            caged_script(argv, tree=self.tree, readable=self._lent),
            env={**self._env, **env},
            on_line=lambda line: print(line, end="", flush=True),
        )

    def run_preinst(self, control: Control, *, version: str) -> None:
        """Run a package's preinst as for a first installation; `version` is that of its dpkg.

        It lies where dpkg has it meanwhile, with the other control files beside it: debconf finds
        its package by that.
        """
        write_control_files(self.tree, control)
        self.run(
            [f"/{ADMIN}/tmp.ci/preinst", "install"],
            DPKG_MAINTSCRIPT_PACKAGE=control.name,
            DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT="1",
            DPKG_MAINTSCRIPT_ARCH=control.fields["architecture"],
            DPKG_MAINTSCRIPT_NAME="preinst",
            DPKG_MAINTSCRIPT_DEBUG="0",
            DPKG_RUNNING_VERSION=version,
            DPKG_ADMINDIR=f"/{ADMIN}",
            DPKG_ROOT="",
        )
        remove_control_files(self.tree)

    def configure(self, labels: Sequence[str]) -> None:
        """Configure these packages, in an order that dpkg chooses; triggers may stay pending."""
        # mmdebstrap too lets dpkg go on where essential packages need one another
        self.run([*_DPKG, "--force-depends", "--no-triggers", "--configure", *labels])

    def configure_rest(self) -> None:
        """Configure all that is still only unpacked, and run every pending trigger."""
        self.run([*_DPKG, "--configure", "--pending"])


def keep_from_starting(tree: Path, work: Path) -> list[tuple[Path, str]]:
    """What the tree is lent while scripts run: a start-stop-daemon that starts nothing."""
    with Beneath(tree) as inside:
        if not inside.exists(_STARTER):
            return []
    starter = work / "start-stop-daemon"
    starter.write_text("#!/bin/sh\nexit 0\n")
    starter.chmod(0o755)
    return [(starter, f"/{_STARTER}")]
