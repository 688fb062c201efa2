"""One guest's part of a night's report: read from its two versions, its proof and its logs."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.console.terminal import printable
from pipeline.errors import PipelineError
from pipeline.files import read_table
from pipeline.project import Project
from pipeline.proof.names import CONSOLE, FOLDER, PROOF
from pipeline.report.changelogs import DebFinder, Library, Log, name_kernel, read_kernel, sort_cves
from pipeline.report.disk_contents import Installed, Inventory, opened_disk, read_inventory
from pipeline.report.file_changes import compare_disks
from pipeline.report.night_model import (
    Failure,
    FileChanges,
    GuestReport,
    Metric,
    Outlier,
    PackageChange,
    PackageSize,
    Proof,
    Scan,
    Vulnerability,
)
from pipeline.report.outcome import Fault, GuestNight
from pipeline.report.package_changes import SourceChange, changed_names, compare_packages
from pipeline.report.trend import Earlier, is_far
from pipeline.scratch import scratch_folder
from pipeline.supply.vulnerabilities import scan_version

MOST_SIZES, MOST_PACKAGES, MOST_VULNERABILITIES = 400, 1000, 500
_PROOF_BYTES = 4 << 20
_CONSOLE_BYTES, _CONSOLE_LINES, _LETTERS, _BRIEF = 64 << 10, 40, 20_000, 1000
# colours, movements of the cursor: a console shown as text does without
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")
# what a version may have beside the artifact, and what a person calls it
_LINKS = {
    "proof": f"{FOLDER}/{PROOF}",
    "console": f"{FOLDER}/{CONSOLE}",
    "packages": "manifest",
    "SBOM": "sbom.cdx.json",
    "provenance": "provenance.dsse.json",
}


@dataclass(frozen=True)
class Desk:
    """What describing a guest takes: where the page will be, and what is known."""

    project: Project
    page: Path
    began_at: float
    finder: DebFinder
    library: Library
    tracker: Path | None
    earlier: Mapping[str, Sequence[Earlier]]


@dataclass(frozen=True)
class Comparison:
    """What came of two versions: packages, files, sizes."""

    packages: tuple[PackageChange, ...] = ()
    files: FileChanges = FileChanges()
    sizes: tuple[PackageSize, ...] = ()
    package_count: int = 0


def describe_guest(desk: Desk, night: GuestNight) -> GuestReport:
    """All of it; what cannot be read is said in a note, and ends nothing."""
    shown = find_shown(night)
    older = night.folder_before if shown == night.folder else night.folder
    proof = _read_proof(shown) if shown else {}
    is_fresh = float(proof.get("proven_at", 0)) >= int(desk.began_at)
    comparison = compare_versions(desk, night.guest, older, shown)
    earlier = desk.earlier.get(night.guest, ())
    metrics = dict(_measure(night, shown, proof if is_fresh else {}))
    cves = sort_cves(name for change in comparison.packages for name in change.cves)
    return GuestReport(
        guest=night.guest,
        verdict=night.verdict,
        version=night.version,
        before=night.before,
        channels=dict(night.channels),
        seconds=dict(night.seconds),
        metrics=metrics,
        bytes_before=measure_disks(older) if older and shown else 0,
        outliers=tuple(_find_outliers(metrics, earlier)),
        failure=_describe_failure(desk, night, proof if is_fresh else {}) if night.fault else None,
        proof=_count_checks(proof) if proof else None,
        package_count=comparison.package_count,
        packages=comparison.packages,
        cves=cves,
        pending_cves=_find_pending(night, earlier, cves),
        files=comparison.files,
        sizes=comparison.sizes,
        scan=_scan(desk, night) if desk.tracker and night.folder else None,
        links=dict(_link(desk, shown)) if shown else {},
        notes=tuple(printable(note)[:_BRIEF] for note in night.notes),
        removed=night.removed,
    )


def find_shown(night: GuestNight) -> Path | None:
    """The folder that the report is about: the new version, or what was built and failed."""
    if night.verdict in ("published", "unchanged"):
        return night.folder
    is_whole = night.built and (night.built / f"{night.guest}.cfg").is_file()
    return night.built if is_whole else None


def compare_versions(desk: Desk, guest: str, before: Path | None, after: Path | None) -> Comparison:
    """The newer one against the older one; only its sizes where there is no older one."""
    if after is None or before == after:
        return Comparison()
    with scratch_folder(desk.project.scratch, f"report-{guest}") as scratch, ExitStack() as open_:
        try:
            image = open_.enter_context(opened_disk(after, guest, _make(scratch / "after")))
            new = read_inventory(image)
        except (PipelineError, OSError) as error:
            return Comparison(files=FileChanges(note=_explain(error)))
        if before is None:
            return Comparison(sizes=_order_sizes(new, {}), package_count=len(new.packages))
        try:
            older = open_.enter_context(opened_disk(before, guest, _make(scratch / "before")))
            old = read_inventory(older)
            files = compare_disks(older, old, image, new)
        except (PipelineError, OSError) as error:
            note = FileChanges(note=f"the version before: {_explain(error)}")
            return Comparison((), note, _order_sizes(new, {}), len(new.packages))
    changes, packages = _compare_packages(desk, before, old, after, new)
    sizes = _order_sizes(new, dict(changed_names(changes)))
    return Comparison(packages, files, sizes, len(new.packages))


def _make(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _explain(error: PipelineError | OSError) -> str:
    return printable(error.brief if isinstance(error, PipelineError) else str(error))[:_BRIEF]


def _compare_packages(
    desk: Desk, before: Path, old: Inventory, after: Path, new: Inventory
) -> tuple[list[SourceChange], tuple[PackageChange, ...]]:
    """The guest's packages and those of a kernel that lies beside its disk."""
    finder = desk.finder
    kernels = [
        name_kernel(folder, finder.find_listed(folder, _keys(read_kernel(folder))))
        for folder in (before, after)
    ]
    was, now = {**kernels[0], **old.packages}, {**kernels[1], **new.packages}
    changes = compare_packages(was, now)
    changed = {package.name for change in changes for package in change.packages}
    # a changelog may be in another package of the same source
    sources = {change.source for change in changes}
    known = {}
    for folder, packages in ((before, was), (after, now)):
        wanted = {n: p for n, p in packages.items() if n in changed or p.source in sources}
        known.update(finder.find(folder, _keys(wanted)))
    logs = desk.library.read(changes, known, now)
    described = [_describe_change(change, logs.get(change.source, Log())) for change in changes]
    described.sort(key=lambda change: not change.cves)
    return changes, tuple(described[:MOST_PACKAGES])


def _keys(packages: Mapping[str, Installed]) -> set[tuple[str, str]]:
    return {(package.name, package.version) for package in packages.values()}


def _describe_change(change: SourceChange, log: Log) -> PackageChange:
    before, after = change.before, change.after
    if change.upgraded:
        packages = [new.name for _, new in change.upgraded]
        added, removed = change.added, change.removed
    else:
        packages = [package.name for package in change.added or change.removed]
        added, removed = [], change.removed if change.added else []
    return PackageChange(
        kind=change.kind,
        source=change.source,
        packages=tuple(packages),
        before=before.version if before else "",
        after=after.version if after else "",
        added=tuple(package.name for package in added),
        removed=tuple(package.name for package in removed),
        entries=log.entries,
        cves=sort_cves(name for entry in log.entries for name in entry.cves),
        note=log.note,
    )


def _order_sizes(inventory: Inventory, changed: Mapping[str, str]) -> tuple[PackageSize, ...]:
    sizes = sorted(inventory.size_by_owner().items(), key=lambda item: (-item[1], item[0]))
    listed = [
        PackageSize(name, size, "added" if changed.get(name) == "added" else "changed")
        if name in changed
        else PackageSize(name, size)
        for name, size in sizes
        if size
    ]
    return tuple(listed[:MOST_SIZES])


def _read_proof(folder: Path) -> dict[str, Any]:
    try:
        table = read_table(folder / FOLDER / PROOF, "a proof's record", limit=_PROOF_BYTES)
        float(table["proven_at"])
    except (OSError, PipelineError, KeyError, TypeError, ValueError):
        return {}
    return table


def _measure(
    night: GuestNight, folder: Path | None, proof: Mapping[str, Any]
) -> Iterator[tuple[Metric, float]]:
    """What is compared night by night; the boot is a proof's, in computed seconds if known."""
    if night.verdict == "published" and "build" in night.seconds:
        yield "build_s", round(float(night.seconds["build"]), 2)
    for table in (proof.get("work"), proof.get("seconds")):
        boot = table.get("boot to login") if isinstance(table, dict) else None
        if isinstance(boot, int | float) and boot > 0:
            yield "boot_s", float(boot)
            break
    if folder is not None and night.verdict in ("published", "unchanged"):
        yield "image_bytes", float(measure_disks(folder))


def measure_disks(folder: Path) -> int:
    """Bytes that a version's disks take where they lie; 0 where there are none."""
    try:
        return sum(path.lstat().st_blocks * 512 for path in folder.glob("disk.*"))
    except OSError:
        return 0


def _scan(desk: Desk, night: GuestNight) -> Scan:
    """What the tracker's file says against the version that nightly leads to now."""
    assert desk.tracker is not None and night.folder is not None
    try:
        known = scan_version(desk.project, night.guest, night.folder, desk.tracker)
    except (PipelineError, OSError) as error:
        return Scan(note=_explain(error))
    listed = [
        Vulnerability(finding.subject[:_BRIEF], finding.text[:_BRIEF], finding.others[:20])
        for finding in known[:MOST_VULNERABILITIES]
    ]
    return Scan(len(known), tuple(listed))


def _find_outliers(
    metrics: Mapping[Metric, float], earlier: Sequence[Earlier]
) -> Iterator[Outlier]:
    for metric, value in metrics.items():
        others = [entry.metrics[metric] for entry in earlier if metric in entry.metrics]
        if is_far(metric, value, others):
            middle = sorted(others)[len(others) // 2]
            yield Outlier(metric, value, middle, len(others))


def _find_pending(
    night: GuestNight, earlier: Sequence[Earlier], cves: Sequence[str]
) -> tuple[str, ...]:
    """What nightly has and stable lacks: of the versions after stable's, and of tonight's."""
    stable, nightly = night.channels.get("stable", ""), night.version
    if not stable or not nightly or stable >= nightly:
        return ()
    versions = [entry for entry in earlier if stable < entry.version <= nightly]
    tonight = cves if night.verdict == "published" else ()
    return sort_cves([*(name for entry in versions for name in entry.cves), *tonight])


def _describe_failure(desk: Desk, night: GuestNight, proof: Mapping[str, Any]) -> Failure:
    fault = night.fault or Fault("", "")
    causes = proof.get("causes", ()) if fault.stage == "prove" else ()
    is_proof = bool(proof) and fault.stage == "prove" and night.built is not None
    return Failure(
        stage=printable(fault.stage)[:_BRIEF],
        brief=printable(fault.brief)[:_BRIEF],
        hint=printable(fault.hint)[:_BRIEF],
        details=printable(_ESCAPES.sub("", fault.details))[-_LETTERS:],
        log=_find_link(desk, desk.project.output / fault.log) if fault.log else "",
        causes=tuple(printable(str(cause))[:_BRIEF] for cause in causes)[:20],
        console=_read_console(night.built / FOLDER / CONSOLE) if is_proof and night.built else "",
    )


def _read_console(path: Path) -> str:
    """The last lines of a console, as text."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            stream.seek(max(0, os.fstat(descriptor).st_size - _CONSOLE_BYTES))
            text = stream.read(_CONSOLE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.rstrip() for line in _ESCAPES.sub("", text).split("\n")]
    return printable("\n".join([line for line in lines if line][-_CONSOLE_LINES:]))


def _count_checks(proof: Mapping[str, Any]) -> Proof:
    checks = proof.get("checks", ())
    rows = [row for row in checks if isinstance(row, dict)] if isinstance(checks, list) else []
    failed = [printable(str(row.get("name")))[:_BRIEF] for row in rows if row.get("ok") is False]
    return Proof(
        verdict=printable(str(proof.get("verdict", "")))[:_BRIEF],
        reason=printable(str(proof.get("reason", "")))[:_BRIEF],
        held=sum(row.get("ok") is True for row in rows),
        failed=tuple(failed[:50]),
        unasked=sum(row.get("ok") is None for row in rows),
    )


def _link(desk: Desk, folder: Path) -> Iterator[tuple[str, str]]:
    """The files of a version that a person may want, relative to the page."""
    for name, file in _LINKS.items():
        if link := _find_link(desk, folder / file):
            yield name, link


def _find_link(desk: Desk, path: Path) -> str:
    """A file below output/, as the page names it; "" for anything else."""
    if ".." in path.parts or not path.is_relative_to(desk.project.output) or not path.is_file():
        return ""
    return quote(os.path.relpath(path, desk.page))


def read_series(
    report: GuestReport, earlier: Sequence[Earlier], night: str
) -> dict[Metric, list[tuple[str, float]]]:
    """Each measure over the nights, tonight's last."""
    series: dict[Metric, list[tuple[str, float]]] = {}
    tonight = Earlier(night, report.version, report.metrics, ())
    for entry in (*earlier, tonight):
        for metric, value in entry.metrics.items():
            series.setdefault(metric, []).append((entry.night, value))
    return series
