"""Diversions that a preinst made, applied to what other packages had unpacked before.

dpkg gives a diverted path's other name to every package but the diverting one (dpkg-divert(1)).
Ubuntu's base-files diverts /bin, /lib and their like, which a few packages still ship as folders:
those become folders of the other name. A diverted file is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.bootstrap.archive import Member
from pipeline.bootstrap.database import ADMIN
from pipeline.errors import PipelineError


def apply_diversions(tree: Path, packages: Mapping[str, tuple[object, Sequence[Member]]]) -> None:
    """Make the diverted folders; `packages` maps a name to what it is and its entries.

    Raises PipelineError where a package's file or link would have been diverted.
    """
    diverted = {path: (other, by) for path, other, by in read_diversions(tree)}
    if not diverted:
        return
    entries = ((name, one) for name in sorted(packages) for one in packages[name][1])
    for package, member in entries:
        other, by = diverted.get(member.path, ("", ""))
        if not other or by == package:
            continue
        if member.kind != "5":
            raise PipelineError(
                f"package {by} diverts {member.path}, which {package} ships",
                hint="use bootstrap=mmdebstrap, which unpacks one after the other",
            )
        folder = f"{tree}{other}"
        if not os.path.isdir(folder):
            os.mkdir(folder)
            os.chown(folder, member.uid, member.gid)
            os.chmod(folder, member.mode)
            os.utime(folder, (member.mtime, member.mtime))


def read_diversions(tree: Path) -> list[tuple[str, str, str]]:
    """The diversions of a tree: path, other name, package."""
    file = tree / ADMIN / "diversions"
    lines = file.read_text().splitlines() if file.is_file() else []
    return list(zip(lines[0::3], lines[1::3], lines[2::3], strict=True))
