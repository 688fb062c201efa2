"""What changelogs say of the packages that changed: out of the .debs of the cache, read in a cage.

Which file of `output/cache/debs` is which package is known from what the stages of a version say
that they took of the mirror, and from the signed indexes of the snapshots that the store has.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import process
from pipeline.artifact.record import read_record
from pipeline.console.terminal import printable
from pipeline.errors import PipelineError
from pipeline.files import read_table
from pipeline.mirror.index import read_package
from pipeline.mirror.snapshot import SNAPSHOT, read_snapshot
from pipeline.mirror.stanzas import read_fields, select_stanzas
from pipeline.project import Project
from pipeline.report.changelog_reader import ANSWER, MOST_ENTRIES
from pipeline.report.disk_contents import Installed, make_package
from pipeline.report.night_model import Entry
from pipeline.report.package_changes import SourceChange
from pipeline.scratch import scratch_folder
from pipeline.store.store import Store
from pipeline.walls.beneath import Beneath
from pipeline.walls.cage import make_room
from pipeline.walls.errand import send

_ANSWER_BYTES = 64 << 20
_PATIENCE_S, _MEMORY = 900, 4 << 30
_ROUNDS = 3  # a documentation folder that is a link to another package's, and that one's
_MOST_SNAPSHOTS = 12
_CVE = re.compile(r"\bCVE-\d{4}-\d{4,7}\b")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_LETTERS = 200


@dataclass(frozen=True)
class Deb:
    """A package and the digest of its file."""

    package: Installed
    sha256: str


@dataclass(frozen=True)
class Log:
    """The entries of one source between two versions, or why there are none."""

    entries: tuple[Entry, ...] = ()
    note: str = ""


def find_cves(text: str) -> tuple[str, ...]:
    """The numbers that a text names, each once, by year and number."""
    return tuple(sorted(set(_CVE.findall(text)), key=_order_cve))


def _order_cve(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("-")[1:]))


def sort_cves(names: Iterable[str]) -> tuple[str, ...]:
    """Each once, by year and number; what is no such number is left out."""
    return find_cves(" ".join(names))


class DebFinder:
    """Packages by name and version, for all guests of a night: every snapshot is read once."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._read: dict[Path, dict[tuple[str, str], Deb]] = {}
        self._asked: dict[Path, set[str]] = {}

    def find(self, folder: Path, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], Deb]:
        """What is known of these: by the version's own record, then as `find_listed` does."""
        recorded = {key: deb for key, deb in _read_taken(folder) if key in wanted}
        missing = {key for key in wanted if key not in recorded}
        return {**recorded, **self.find_listed(folder, missing)}

    def find_listed(
        self, folder: Path, wanted: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Deb]:
        """By the version's own snapshot, then by others of the store: these know the sources."""
        known: dict[tuple[str, str], Deb] = {}
        for place in self._snapshots(folder):
            missing = {key for key in wanted if key not in known}
            if not missing:
                break
            table = self._packages_of(place, {name for name, _ in missing})
            known.update((key, table[key]) for key in missing if key in table)
        return known

    def _snapshots(self, folder: Path) -> Iterator[Path]:
        """The snapshot that an artifact was made from, then others of the store, newest first."""
        store = Store.of(self._project)
        made = read_record(folder).get("mirror")
        own = store.location("mirror", made.fingerprint) if made else None
        if own and (own / SNAPSHOT).is_file():
            yield own
        others = [path.parent for path in (self._project.store / "mirror").glob(f"*/{SNAPSHOT}")]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        yield from (path for path in others[:_MOST_SNAPSHOTS] if path != own)

    def _packages_of(self, place: Path, names: set[str]) -> dict[tuple[str, str], Deb]:
        known = self._read.setdefault(place, {})
        asked = self._asked.setdefault(place, set())
        if missing := names - asked:
            asked |= missing
            try:
                known.update(_read_debs(place, missing))
            except (OSError, KeyError, TypeError, ValueError, PipelineError):
                return {}  # being made, or let go of: another one may know
        return known


def _read_taken(folder: Path) -> Iterator[tuple[tuple[str, str], Deb]]:
    """What the stages of an artifact say they took of the mirror (cutoff.name_packages)."""
    for made in read_record(folder).values():
        for parts in made.taken.values() if isinstance(made.taken, dict) else ():
            packages = parts.get("packages") if isinstance(parts, dict) else None
            for name, text in packages.items() if isinstance(packages, dict) else ():
                words = str(text).split(" ")
                if len(words) == 3 and _SHA256.fullmatch(words[2]):
                    package = Installed(str(name), words[0], str(name), words[0])
                    yield (package.name, package.version), Deb(package, words[2])


def _read_debs(place: Path, names: set[str]) -> Iterator[tuple[tuple[str, str], Deb]]:
    snapshot = read_snapshot(place)
    for root, name in snapshot.index_files:
        for stanza in select_stanzas((place / name).read_bytes(), names):
            listed = read_package(root, stanza)
            package = make_package(read_fields(stanza))
            yield (package.name, package.version), Deb(package, listed.sha256)


def name_kernel(folder: Path, known: Mapping[tuple[str, str], Deb]) -> dict[str, Installed]:
    """The packages of a kernel that is not installed in the guest, with their sources if known."""
    named = read_kernel(folder)
    keys = {name: (name, package.version) for name, package in named.items()}
    return {name: known[key].package if key in known else named[name] for name, key in keys.items()}


def read_kernel(folder: Path) -> dict[str, Installed]:
    """The packages that kernel.json names: none where the guest brings its kernel."""
    return {package.name: package for package in _kernel_packages(folder)}


def _kernel_packages(folder: Path) -> Iterator[Installed]:
    try:
        packages = read_table(folder / "kernel.json", "a kernel's record").get("packages", {})
        for name, facts in packages.items():
            yield make_package({"package": str(name), "version": str(facts[0])})
    except (OSError, PipelineError, AttributeError, TypeError, LookupError):
        return


class Library:
    """The changelogs that were read for the guests of a night: each package is opened once."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._logs: dict[str, Log] = {}

    def read(
        self,
        changes: Sequence[SourceChange],
        known: Mapping[tuple[str, str], Deb],
        installed: Mapping[str, Installed],
    ) -> dict[str, Log]:
        """What stands between the two versions of each source, by its name."""
        logs: dict[str, Log] = {}
        questions: dict[str, dict[str, Any]] = {}
        for change in changes:
            if change.kind in ("removed", "added"):
                continue
            try:
                questions[change.source] = self._make_question(change, known)
            except PipelineError as error:
                logs[change.source] = Log(note=error.brief)
        keys = {source: json.dumps(question) for source, question in questions.items()}
        self._ask(
            [questions[name] for name in questions if keys[name] not in self._logs],
            known,
            installed,
        )
        return {**logs, **{source: self._logs[key] for source, key in keys.items()}}

    def _ask(
        self,
        questions: Sequence[Mapping[str, Any]],
        known: Mapping[tuple[str, str], Deb],
        installed: Mapping[str, Installed],
    ) -> None:
        """Note an answer to each; a changelog that is in another package is sought there."""
        waiting = {json.dumps(question): question for question in questions}
        for turn in range(_ROUNDS):
            if not waiting:
                return
            answers = _ask_reader(self._project, list(waiting.values()))
            for key, question in list(waiting.items()):
                answer = answers[question["source"]]
                elsewhere = installed.get(str(answer.get("elsewhere", "")))
                deb = known.get((elsewhere.name, elsewhere.version)) if elsewhere else None
                path = self._find(deb) if deb else ""
                if deb and path and turn < _ROUNDS - 1:
                    waiting[key] = {**question, "deb": path, "package": deb.package.name}
                else:
                    self._logs[key] = _read_answer(answer)
                    del waiting[key]

    def _make_question(
        self, change: SourceChange, known: Mapping[tuple[str, str], Deb]
    ) -> dict[str, Any]:
        """What the reader is asked of a source, of the smallest package of it that is here."""
        is_back = change.kind == "downgraded"
        sides = [pair[0 if is_back else 1] for pair in change.upgraded]
        sides = sides or (change.removed if is_back else change.added)
        debs = [known[one.name, one.version] for one in sides if (one.name, one.version) in known]
        here = [deb for deb in debs if self._find(deb)]
        if not here:
            why = (
                "its .deb is not in output/cache/debs" if debs else "no index here has its version"
            )
            raise PipelineError(f"no changelog: {why}")
        deb = min(here, key=lambda deb: Path(self._find(deb)).stat().st_size)
        before, after = change.before, change.after
        assert before is not None and after is not None
        low, high = (after, before) if is_back else (before, after)
        return {
            **{"source": change.source, "package": deb.package.name, "deb": self._find(deb)},
            **{"after": [low.source_version, low.version]},
            **{"until": [high.source_version, high.version]},
        }

    def _find(self, deb: Deb) -> str:
        path = self._project.cache.debs / deb.sha256
        return str(path) if path.is_file() else ""


def _ask_reader(
    project: Project, questions: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The reader's answers by source; one for each question, whatever became of it."""
    with scratch_folder(project.scratch, "changelogs") as scratch:
        room = make_room(scratch / "room")
        try:
            send(
                "pipeline.report.changelog_reader",
                {"room": str(room), "questions": list(questions)},
                file=scratch / "order.json",
                room=room,
                run=process.run,
                readable=[Path(question["deb"]) for question in questions],
                rights=["timeout", "-k", "5", str(_PATIENCE_S), "prlimit", f"--as={_MEMORY}"],
            )
            with Beneath(room, follow=False) as inside:
                answers = json.loads(inside.read(ANSWER, limit=_ANSWER_BYTES))
        except (PipelineError, OSError, ValueError) as error:
            why = error.brief if isinstance(error, PipelineError) else str(error)
            answers = {
                question["source"]: {"note": f"no changelog: {why}"} for question in questions
            }
    table = answers if isinstance(answers, dict) else {}
    return {
        question["source"]: _require_table(table.get(question["source"])) for question in questions
    }


def _require_table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"note": "no changelog: its reader was misled"}


def _read_answer(answer: Mapping[str, Any]) -> Log:
    """What came out of the cage as what it is: texts of strangers, each with a bound."""
    entries = []
    rows = answer.get("entries")
    for entry in rows[:MOST_ENTRIES] if isinstance(rows, list) else ():
        fields = entry if isinstance(entry, dict) else {}
        text = printable(str(fields.get("text", "")))
        entries.append(
            Entry(
                version=_shorten(fields.get("version")),
                distributions=_shorten(fields.get("distributions")),
                urgency=_shorten(fields.get("urgency")),
                date=_shorten(fields.get("date")),
                text=text,
                cves=find_cves(text),
            )
        )
    if "elsewhere" in answer:
        name = _shorten(answer["elsewhere"])
        return Log(note=f"no changelog: it is in the package {name}, which is not at hand")
    return Log(tuple(entries), _shorten(answer.get("note")))


def _shorten(value: object) -> str:
    return printable(str(value or ""))[:_MOST_LETTERS]
