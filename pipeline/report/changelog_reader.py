"""Changelogs out of .debs, between two versions: `python -m ... ORDER`.

Runs in a cage, because packages decide what is unpacked and what stands in it. Names of files as
Policy 12.7 has them: changelog.Debian.gz, changelog.gz of a native package, and what
dh_installchangelogs writes apart for a package that the archive built again (binNMU).
"""

import json
import posixpath
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from debian.changelog import ChangeBlock, Changelog, ChangelogParseError

from pipeline.bootstrap.deb import Member, read_deb, read_members
from pipeline.compression import unpack
from pipeline.errors import PipelineError
from pipeline.mirror.versions import is_newer
from pipeline.walls.errand import carry_out

ANSWER = "changelogs.json"
MOST_ENTRIES = 60
_MOST_BLOCKS = 400
_LOG_BYTES, _ENTRY_LETTERS = 16 << 20, 20_000
_DOC = "/usr/share/doc/"
_REBUILT = re.compile(r"changelog\.Debian\.[a-z0-9-]+\.gz")
_SOURCE, _BINARY = 0, 1


def read_all(order: dict[str, Any]) -> None:
    """Answer every question of an order; what goes wrong with a package is its answer."""
    answers = {}
    for question in order["questions"]:
        try:
            answers[question["source"]] = _answer(question)
        except (PipelineError, ChangelogParseError, ValueError, OSError) as error:
            answers[question["source"]] = {"note": f"no changelog: {error}"}
    Path(order["room"], ANSWER).write_text(json.dumps(answers))


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    package = question["package"]
    archive = read_deb(Path(question["deb"]), name=package)
    members = {one.path: one for one in read_members(archive.files, name=package)}
    home = f"{_DOC}{package}"
    folder = members.get(home)
    if folder is not None and folder.kind == "2":
        return _point(posixpath.join(_DOC, folder.target))
    names = [path.removeprefix(f"{home}/") for path in members if path.startswith(f"{home}/")]
    rebuilt = [name for name in names if _REBUILT.fullmatch(name)]
    usual = [name for name in ("changelog.Debian.gz", "changelog.gz") if name in names][:1]
    entries: list[dict[str, str]] = []
    for name, side in (*((name, _BINARY) for name in rebuilt), *((n, _SOURCE) for n in usual)):
        member = members[f"{home}/{name}"]
        if member.kind == "2" and not entries:
            return _point(posixpath.join(home, member.target))
        text = _unpack(archive.files, member)
        entries += _select(text, question["after"][side], question["until"][side])
    if not usual and not rebuilt:
        return {"note": "no changelog: its package holds none"}
    return _limit(entries)


def _point(target: str) -> dict[str, Any]:
    """Where a link leads: the documentation of another package."""
    path = posixpath.normpath(target)
    if not path.startswith(_DOC):
        return {"note": "no changelog: it is a link to elsewhere"}
    return {"elsewhere": path.removeprefix(_DOC).partition("/")[0]}


def _unpack(tar: bytes, member: Member) -> str:
    packed = tar[member.start : member.start + member.size]
    return unpack(packed, "gzip", limit=_LOG_BYTES).decode("utf-8", "replace")


def _select(text: str, after: str, until: str) -> Iterator[dict[str, str]]:
    """The entries that are newer than one version and no newer than the other."""
    log = Changelog(text, max_blocks=_MOST_BLOCKS, allow_empty_author=True, strict=False)
    for block in log:
        version = str(block.version)
        if is_newer(version, until):
            continue
        if not is_newer(version, after):
            return
        yield _describe(block)


def _describe(block: ChangeBlock) -> dict[str, str]:
    lines = "\n".join(str(line) for line in block.changes()).strip("\n")
    cut = "\n  [...]" if len(lines) > _ENTRY_LETTERS else ""
    return {
        "version": str(block.version),
        "distributions": str(block.distributions or ""),
        "urgency": str(block.urgency or ""),
        "date": str(block.date or ""),
        "text": lines[:_ENTRY_LETTERS] + cut,
    }


def _limit(entries: list[dict[str, str]]) -> dict[str, Any]:
    left_out = len(entries) - MOST_ENTRIES
    note = f"{left_out} older entries are left out" if left_out > 0 else ""
    return {"entries": entries[:MOST_ENTRIES], "note": note if entries else "no entry for it"}


if __name__ == "__main__":
    sys.exit(carry_out(read_all))
