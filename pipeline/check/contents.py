"""The artifact's files: file system, swap, manifest, sums, and nothing secret (B3, C12, C13)."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.artifact.record import render_manifest
from pipeline.artifact.sums import DISK_SUMS, SUMS, read_sums
from pipeline.check.facts import Facts, compare, judge
from pipeline.check.file_systems import FileSystem
from pipeline.check.image import MOST_FILE
from pipeline.errors import Finding, PipelineError
from pipeline.storage.filesystems import MOUNTED
from pipeline.storage.images import identity_uuid

MIB = 1 << 20
STATUS = "/var/lib/dpkg/status"
_SWAP_MAGIC = (b"SWAPSPACE2", 4086)  # at the end of the first page, mkswap(8)
# what the kernel or e2fsprogs add by themselves while a file system is in use
_MOVING_FEATURES = frozenset({"needs_recovery", "orphan_file", "orphan_present"})
_CHECKERS = {"xfs": "xfs_repair", "btrfs": "btrfs check"}
_HASH = re.compile(r"\$(?:y|gy|7|2[aby]|6|5|1)\$[./A-Za-z0-9$=,+]{15,}")
_PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


def check_spec(facts: Facts) -> Iterator[Finding]:
    """B5: the artifact was made from the spec as it is today."""
    recorded, today = facts.record("spec.json"), facts.spec.as_json()
    keys = sorted(facts.keys & set(recorded))
    changed = [key for key in keys if recorded[key] != today.get(key)]
    if not recorded:
        changed = ["spec.json cannot be read"]
    hint = f"build it again: doit build name={facts.spec.name}"
    faults = [f"made from another spec: {', '.join(changed)}"] if changed else []
    yield judge("B5", "spec", faults, ok="as it was built", hint=hint)


def check_file_system(facts: Facts) -> Iterator[Finding]:
    """B3: clean, of the spec's size, with the suite's features; swap and the others likewise."""
    spec, found = facts.spec, facts.file_system
    yield judge("B3", _CHECKERS.get(spec.fs, "e2fsck"), _told(found), ok="clean")
    root, *_ = facts.targets
    disk, wanted_mib = facts.sizes.get(root.path.name, 0), root.part.size_mib
    # a volume of whole extents, or a device that is given, may be longer
    is_more = root.kind != "file" and disk > wanted_mib * MIB
    expected = _mib(disk) if is_more else f"{wanted_mib} MiB"
    yield compare("B3", "disk size", expected=expected, seen=_mib(disk))
    expected = f"{spec.size_mib} MiB"
    yield compare("B3", "file system size", expected=expected, seen=_mib(found.size))
    if spec.fs not in MOUNTED:
        wanted = frozenset(spec.mke2fs_features(spec.fs).split(",")) - {"none"}
        faults = [f"lacks {name}" for name in sorted(wanted - found.features)]
        faults += [f"has {name}" for name in sorted(found.features - wanted - _MOVING_FEATURES)]
        yield judge("B3", "features", faults, ok=f"{len(wanted)}, those of {spec.suite}")
    uuid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    faults = [] if re.fullmatch(uuid, found.uuid) else [found.uuid or "none"]
    yield judge("B3", "UUID", faults, ok=found.uuid)
    yield from _check_others(facts)
    yield _check_swap(facts)


def _check_others(facts: Facts) -> Iterator[Finding]:
    """Every file system beside the root's: that of the guest, clean, of the spec's size."""
    for part, system in facts.others.items():
        faults = _told(system)
        if system.uuid != identity_uuid(facts.spec, part):
            faults.append(f"UUID {system.uuid or 'none'}")
        if system.size != part.size_mib * MIB:
            faults.append(_mib(system.size))
        yield judge("B3", part.mountpoint, faults, ok=f"{part.fs}, clean, {part.size_mib} MiB")


def _check_swap(facts: Facts) -> Finding:
    magic, at = _SWAP_MAGIC
    has_magic = facts.swap_page[at : at + len(magic)] == magic
    swaps = (target.path.name for target in facts.targets if target.part.is_swap)
    size = facts.sizes.get(next(swaps, "swap.img"), 0)
    seen = f"{_mib(size)}{'' if has_magic else ', unsigned'}" if size else ""
    expected = f"{facts.spec.swap_mib} MiB" if facts.spec.swap_mib else ""
    return compare("A25", "swap", expected=expected, seen=seen)


def _told(system: FileSystem) -> list[str]:
    return [system.faults] if system.faults else []


def check_manifest(facts: Facts) -> Iterator[Finding]:
    """C12: the manifest lists what dpkg knows in the image, the spec's packages among it."""
    try:
        installed = render_manifest(facts.tree.text(STATUS, limit=MOST_FILE)).splitlines()
    except PipelineError as fault:
        yield judge("C12", "manifest", [str(fault)], ok="as dpkg says")
        return
    listed = facts.texts.get("manifest", "").splitlines()
    here, there = set(installed), set(listed)
    faults = [f"not installed: {line}" for line in listed if line not in here]
    faults += [f"not listed: {line}" for line in installed if line not in there]
    yield judge("C12", "manifest", faults[:3], ok=f"{len(installed)} packages, as dpkg says")
    names = {line.split()[0] for line in installed}
    missing = [name for name in facts.spec.packages if name.split("=")[0] not in names]
    asked = " ".join(facts.spec.packages) or "none asked for"
    yield judge("B4", "packages", missing, ok=asked, hint="they are not installed in the image")


def check_secrets(facts: Facts) -> Iterator[Finding]:
    """C13: no password, hash or private key in the artifact's texts; in the image only its own."""
    faults = [
        f"{name}: a password hash" for name, text in facts.texts.items() if _HASH.search(text)
    ]
    faults += [f"{name}: a private key" for name, text in facts.texts.items() if _is_key(text)]
    secret = facts.secret.decode("utf-8", "surrogateescape")
    if len(secret) > 5:
        faults += [f"{name}: the password" for name, text in facts.texts.items() if secret in text]
    yield judge("C13", "artifact's secrets", faults, ok="none", hint="tell its maintainers")
    foreign = [
        path
        for path, content in facts.tree.files()
        if b"PRIVATE KEY-----" in content
        and not re.fullmatch(r"/etc/ssh/ssh_host_\w+_key", path)
        and _is_key(content.decode("utf-8", "surrogateescape"))
    ]
    yield judge("C13", "private keys inside", foreign, ok="host keys only", hint="remove them")


def check_sums(facts: Facts, digest: Callable[[Path], str]) -> Iterator[Finding]:
    """C12: the sums have every file, each as it is; a disk that its guest wrote to is let be."""
    listed = read_sums(facts.texts.get(SUMS, "") + facts.texts.get(DISK_SUMS, ""))
    checked = [name for name in sorted(listed) if name not in facts.written]
    faults = [f"no {name}" for name in checked if not (facts.folder / name).is_file()]
    faults += [
        f"{name} has changed"
        for name in checked
        if (facts.folder / name).is_file() and digest(facts.folder / name) != listed[name]
    ]
    needed = {f"{facts.spec.name}.cfg", "spec.json", "manifest"}
    needed |= {target.path.name for target in facts.targets if target.kind == "file"}
    faults += [f"{name} is not in it" for name in sorted(needed - set(listed))]
    hint = f"build it again: doit build name={facts.spec.name} replace=yes"
    yield judge("C12", SUMS, faults, ok=f"{len(checked)} files", hint=hint)
    if facts.golden:
        changed = digest(facts.golden.path) != facts.golden.noted
        faults = [f"{facts.golden.path} is not what the guest was built on"] if changed else []
        yield judge("C12", "golden image", faults, ok="as it was built", hint=hint)
    if facts.written & set(listed):
        names = ", ".join(sorted(facts.written & set(listed)))
        text = f"{names}: the guest has written to it since it was built; not compared"
        yield Finding("warning", "disks", text, code="C12")


def _is_key(text: str) -> bool:
    return _PRIVATE.search(text) is not None


def _mib(size: int) -> str:
    return f"{size / MIB:g} MiB"


def check_read(facts: Facts) -> Iterator[Finding]:
    """B3: all that the checks asked for could be read; what is not there is none of this."""
    faults = [*facts.unread, *(f"{path} is too long" for path in sorted(facts.tree.oversized))]
    yield judge("B3", "files read", faults[:5], ok=f"{len(facts.tree.nodes)} names")


CHECKS = (check_spec, check_file_system, check_manifest, check_secrets, check_read)
