"""What Debian's security tracker says against a published version, as findings."""

from pathlib import Path

from pipeline.artifact.published import MOST_STATEMENT_BYTES
from pipeline.console.terminal import printable
from pipeline.errors import Finding, UsageError
from pipeline.files import read_bytes, read_table
from pipeline.project import Project
from pipeline.supply.bom import CYCLONEDX, find_vulnerabilities

# as the tracker has them, the worst first; what it has not looked at may be any of them
URGENCIES = ("high", "medium", "low", "not-yet-assigned", "unimportant", "end-of-life")


def scan_version(
    project: Project, guest: str, folder: Path, tracker: Path, *, fail: str | None = None
) -> list[Finding]:
    """Each vulnerability of the version in `folder`, the worst first; offline.

    From the urgency `fail` on they are errors. Raises UsageError for a version without an SBOM and
    for what is no file of the tracker.
    """
    try:
        bom = read_bytes(folder / CYCLONEDX, limit=MOST_STATEMENT_BYTES)
        suite = str(read_table(folder / "spec.json", "a spec").get("suite", ""))
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} has no {Path(error.filename).name}",
            hint=f"publish it again: doit publish name={guest}",
        ) from error
    fatal = URGENCIES[: URGENCIES.index(fail) + 1] if fail else ()
    known = find_vulnerabilities(project, guest, suite, bom, tracker)
    known.sort(key=lambda entry: (URGENCIES.index(entry["urgency"]), entry["package"]))
    return [
        Finding(
            level="error" if entry["urgency"] in fatal else "warning",
            subject=printable(entry["cve"]),
            message=_describe(entry),
            others=tuple(map(printable, entry["binaries"])),
        )
        for entry in known
    ]


def _describe(entry: dict[str, str]) -> str:
    fixed = f"fixed in {entry['fixed']}" if entry["fixed"] else "no fix yet"
    text = f"{entry['package']} {entry['version']}: {entry['urgency']}, {fixed}"
    return printable(f"{text}: {entry['description']}" if entry["description"] else text)
