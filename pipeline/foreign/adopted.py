"""A root file system that came as a tar becomes one that guests are made of.

Unpacked, surveyed, mended and packed again in a cage; then published in output/adopted/NAME by one
rename, with a record of what was changed and why, and a spec that names it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import Finding, VerificationError
from pipeline.files import digest_file, write_durably
from pipeline.foreign.changes import Change
from pipeline.foreign.mend import Wanted, find_trouble, plan_changes
from pipeline.foreign.mounted_root import change_folder, survey_folder
from pipeline.foreign.root_tree import RootTree
from pipeline.foreign.static_busybox import find_busybox
from pipeline.guest.adopted_tree import RECORD, TAR, Adopted, NetworkTool
from pipeline.project import Project
from pipeline.spec.load import Draft, draft_spec
from pipeline.store.store import publish_folder
from pipeline.suites import SUITES
from pipeline.walls.beneath import take
from pipeline.walls.cage import caged, caged_reader, make_room

Run = Callable[..., str]
MIB = 1 << 20
_LIKE = "bookworm"  # what a system that is of no suite is treated as
_LEAST_EPOCH, _MOST_EPOCH = 315_532_800, 2**31 - 1
_KEPT_KINDS = ("tmpfs", "nfs", "nfs4", "cifs", "9p", "fuse", "bind")
_ATTRIBUTES = ("--xattrs", "--xattrs-include=*", "--xattrs-exclude=security.selinux", "--acls")
# attributes take POSIX' format, whose own headers would hold tar's process number and access times
_STEADY = (
    "--format=posix",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime,delete=mtime",
)
# as tar(1) lists them by --full-time under TZ=UTC
_LISTED = re.compile(r"^\S+ \S+ +\S+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What was found in a tree, what is to be done, and what its guest is to be made with."""

    name: str
    tree: RootTree
    wanted: Wanted
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]
    values: Mapping[str, str]

    @property
    def errors(self) -> list[Finding]:
        """What cannot be mended."""
        return [finding for finding in self.findings if finding.level == "error"]


class Bench:
    """A tar unpacked in a cage, below `work`, a scratch folder of this command."""

    def __init__(self, tar: Path, *, project: Project, work: Path, run: Run) -> None:
        self._project, self._work, self._run = project, work, run
        self._tar = tar
        self._room = make_room(work / "tree-room")
        self._tree = self._room / "tree"

    def look(self, name: str, *, kernel: str = "", merged: Sequence[str] = ()) -> Adoption:
        """Unpack and survey it; `kernel` is a package of ours to boot it with, "" for its own.

        `merged` were file systems of their own.
        """
        unpack = ["tar", "-C", self._tree, "--numeric-owner", *_ATTRIBUTES]
        unpack += ["--exclude=./dev/*", "-xpf", self._tar]
        before: list[list[object]] = [["mkdir", "--mode=755", self._tree]]
        self._run(caged(unpack, room=self._room, readable=[self._tar], before=before))
        tree = survey_folder(self._tree, room=self._room, work=self._work, run=self._run)
        size = self._tar.stat().st_size
        return plan_adoption(name, tree, bytes_in=size, kernel=kernel, merged=merged)

    def take_in(self, adoption: Adoption, origin: Mapping[str, Any]) -> Path:
        """Make the changes, pack it, publish it; returns its folder.

        `origin` says where it came from, for the record. Raises VerificationError where something
        cannot be mended.
        """
        refuse_unmendable(adoption)
        epoch = self._find_epoch()
        busybox = None
        if any(change.how == "initrd" for change in adoption.changes):
            busybox = find_busybox(self._project, adoption.tree.arch, self._work / "busybox")
            busybox.chmod(0o644)
        after = change_folder(
            *(self._tree, adoption.changes),
            room=self._room,
            work=self._work,
            run=self._run,
            busybox=busybox,
            time_s=epoch,
        )
        folder = self._work / "adopted"
        folder.mkdir(mode=0o700)  # its files may be secrets of where it came from
        self._pack(folder / TAR)
        kept = describe_tree(adoption, after, folder / TAR, epoch)
        record = {
            "origin": dict(origin),
            "tree": asdict(kept),
            "survey": {key: row for key, row in asdict(adoption.tree).items() if key != "texts"},
            "findings": [finding.as_json() for finding in adoption.findings],
            "changes": [change.as_json() for change in adoption.changes],
        }
        text = json.dumps(record, indent=1, sort_keys=True)
        write_durably(folder / RECORD, f"{text}\n".encode(), mode=0o600)
        final = self._project.adopted / adoption.name
        publish_folder(folder, final)
        return final

    def _find_epoch(self) -> int:
        """The time of its newest file, as its own tar says it."""
        list_all = ["env", "TZ=UTC", "tar", "--full-time", "--numeric-owner", "-tvf", self._tar]
        listed = _LISTED.findall(self._run(caged_reader(list_all, readable=[self._tar])))
        newest = max(listed, default="1980-01-01 00:00:00")
        seconds = int(datetime.fromisoformat(f"{newest}+00:00").timestamp())
        return min(_MOST_EPOCH, max(_LEAST_EPOCH, seconds))

    def _pack(self, target: Path) -> None:
        pack = ["tar", "-C", self._tree, *_STEADY, "--sort=name", "--numeric-owner"]
        pack += [*_ATTRIBUTES, "-cf", self._room / TAR, "."]
        self._run(caged(pack, room=self._room))
        take(self._room, TAR, target, mode=0o644)


def plan_adoption(
    name: str, tree: RootTree, *, bytes_in: int, kernel: str = "", merged: Sequence[str] = ()
) -> Adoption:
    """What is to be done with a tree that was surveyed; pure."""
    is_own = not kernel and any(each.has_pvh_note and each.blkfront for each in tree.kernels)
    wanted = Wanted(
        boot="grub" if is_own else "direct",
        kernel="own" if is_own else "ours",
        nodes={"/": "/dev/xvda1", "swap": "/dev/xvda2"},
        keeps_uuids=False,
        network="replaced",
        secrets="replaced",
        merged=tuple(merged),
    )
    findings = [*find_trouble(tree, wanted)]
    if choose_tool(tree) is None:
        hint = "install ifupdown, systemd-networkd, netplan or NetworkManager in it"
        text = "nothing in it that could be told an address"
        findings.insert(0, Finding("error", "network", text, hint))
    if not is_own and not kernel:
        why = "it has no kernel" if not tree.kernels else "no kernel of its own is fit for PVH"
        hint = "the guest boots a kernel package of the pipeline, whose modules it gets"
        findings.append(Finding("warning", "kernel", why, hint))
    return Adoption(
        name=name,
        tree=tree,
        wanted=wanted,
        findings=tuple(findings),
        changes=tuple(plan_changes(tree, wanted)),
        values=_values(name, tree, wanted, bytes_in=bytes_in, kernel=kernel),
    )


def _values(
    name: str, tree: RootTree, wanted: Wanted, *, bytes_in: int, kernel: str
) -> dict[str, str]:
    """The keys of its spec: what it is most like, and what makes it boot."""
    known = {f"{suite.distribution} {suite.version}": suite.name for suite in SUITES.values()}
    suite = known.get(f"{tree.os_id} {tree.os_version}", _LIKE)
    init = "systemd" if tree.init == "systemd" else "sysvinit"
    need_mib = bytes_in // MIB * 3 // 2 + 512
    size_mib = max(4096, (need_mib + 1023) // 1024 * 1024)
    values = {"adopted": name, "suite": suite, "type": "pvh", "boot": wanted.boot}
    values |= {"init": init} if init in SUITES[suite].inits else {}
    values |= {"kernel": kernel} if kernel else {}
    values |= {"size": f"{size_mib}M"} if size_mib > 4096 else {}
    return values


def choose_tool(tree: RootTree) -> NetworkTool | None:
    """The tool that its new network files are for: its own, else systemd's where it has that."""
    if tree.network != "other":
        return tree.network
    return "networkd" if tree.init == "systemd" else None


def describe_tree(adoption: Adoption, after: RootTree, tar: Path, epoch: int) -> Adopted:
    """What the guest half has to know of it."""
    tree = adoption.tree
    tool = choose_tool(tree)
    assert tool is not None
    lines = after.texts.get("/etc/fstab", "").splitlines()
    kept = [
        lines[entry.number]
        for entry in after.fstab
        if entry.fs in _KEPT_KINDS and entry.mountpoint not in ("/dev/shm", "/tmp", "/")
    ]
    own = adoption.wanted.kernel == "own"
    return Adopted(
        sha256=digest_file(tar),
        bytes=tar.stat().st_size,
        epoch=epoch,
        network=tool,
        is_systemd=tree.init == "systemd",
        has_sshd=tree.has_sshd,
        is_debian_family=tree.is_debian_family and "/var/lib/dpkg" in tree.folders,
        lib="usr/lib" if tree.has_merged_usr else "lib",
        os_name=tree.os_name,
        os_id=tree.os_id,
        kernel=tree.kernels[0].abi if own and tree.kernels else "",
        fstab=tuple(kept),
    )


def refuse_unmendable(adoption: Adoption) -> None:
    """VerificationError with all that no change mends."""
    errors = adoption.errors
    if errors:
        details = "\n".join(f"{error.subject}: {error.text}" for error in errors[1:])
        first = errors[0]
        raise VerificationError(
            f"{adoption.name}: {first.subject}: {first.text}", details=details, hint=first.hint
        )


def draft_guest(adoption: Adoption, project: Project, given: Mapping[str, str]) -> Draft:
    """Its spec, not written yet; `given` are keys of the command line, which win."""
    return draft_spec(adoption.name, {**adoption.values, **given}, project.guests)
