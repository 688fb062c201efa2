"""Diversions that a preinst made, applied to what other packages had unpacked before.

dpkg gives a diverted path's other name to every package but the diverting one (dpkg-divert(1)).
Ubuntu's base-files diverts /bin, /lib and their like, which a few packages still ship as folders:
those become folders of the other name. A diverted file is refused.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.bootstrap.database import ADMIN
from pipeline.bootstrap.deb import Member, not_written
from pipeline.errors import PipelineError
from pipeline.walls.beneath import Beneath
from pipeline.walls.package_names import require_path

_REGISTER = f"{ADMIN}/diversions"
_REGISTER_MAX = 1 << 20


def apply_diversions(root: Path, packages: Mapping[str, tuple[object, Sequence[Member]]]) -> None:
    """Make the diverted folders; `packages` maps a name to what it is and its entries.

    Raises PipelineError where a package's file or link would have been diverted, and for a
    register of diversions that is none.
    """
    with Beneath(root) as tree:
        diverted = {path: (other, by) for path, other, by in _read(tree)}
        if not diverted:
            return
        entries = ((name, member) for name in sorted(packages) for member in packages[name][1])
        for package, member in entries:
            other, by = diverted.get(member.path, ("", ""))
            if other and by != package:
                _divert(tree, package, member, other=other, by=by)


def _divert(tree: Beneath, package: str, member: Member, *, other: str, by: str) -> None:
    if member.kind != "5":
        raise PipelineError(
            f"package {by} diverts {member.path}, which {package} ships",
            hint="use bootstrap=mmdebstrap, which unpacks one after the other",
        )
    try:
        if not tree.is_folder(other):
            tree.make_folder(other, mode=member.mode, uid=member.uid, gid=member.gid)
            tree.utime(other, member.mtime)
    except OSError as error:
        raise not_written(package, other, error) from error


def _read(tree: Beneath) -> list[tuple[str, str, str]]:
    """The diversions of a tree: path, other name, package."""
    content = tree.read(_REGISTER, limit=_REGISTER_MAX) if tree.exists(_REGISTER) else b""
    if not content:
        return []
    lines = content.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
    if len(lines) % 3:
        raise PipelineError(f"{tree.root}/{_REGISTER}: not three lines for each diversion")
    for path in (*lines[0::3], *lines[1::3]):
        require_path(path, where="a diversion")
    return list(zip(lines[0::3], lines[1::3], lines[2::3], strict=True))
