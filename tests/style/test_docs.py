"""The pages: every link, every anchor and every named file of docs/ is there."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("tutorial", "how-to", "reference", "explanation")
# what an outline of a page stands at the top for: rules, generators and editors name it
AT_THE_TOP = set(
    "README.md conf.py architecture.md domu.7 flow.svg rooms.svg site.css spec.schema.json "
    "statements.schema.json unbootable.toml".split()
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# interop: a folder of QEMU's documentation
_NAMED = re.compile(r"(?<![\w/.-])docs/(?!interop/)[\w./-]*\w")


def tracked(*patterns: str) -> list[str]:
    """Files of the repository that git knows or is about to."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


PAGES = tracked("*.md")


def without_code(text: str) -> str:
    """Markdown without its blocks of code, whose # is no heading and whose [] is no link."""
    return re.sub(r"^```[\s\S]*?^```$|^ {4}(?! *[-*] ).*$", "", text, flags=re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """The headings as GitHub and the site name them."""
    text = without_code(page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_anchor_of_a_page_leads_somewhere(page: str) -> None:
    path = ROOT / page
    for target in _LINK.findall(without_code(path.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(there), f"{page}: {target}"


def test_every_page_that_is_named_anywhere_is_there() -> None:
    """Errors, help and comments name pages as docs/...; in groff a hyphen has a backslash."""
    missing = [
        f"{name}: {named}"
        for name in tracked("*.py", "*.md", "*.toml", "*.sh", "*.yml", "*.svg", "*.json", "*.1")
        + tracked("doit", "ci/*", "elements/*")
        for named in _NAMED.findall(re.sub(r"\\+-", "-", (ROOT / name).read_text(encoding="utf-8")))
        if not (ROOT / named).exists()
    ]
    assert missing == []


def test_every_page_stands_in_its_kind_of_documentation() -> None:
    """A tutorial teaches, a how-to serves a task, a reference states, an explanation says why."""
    top = {name.split("/")[1] for name in tracked("docs/*") if name.count("/") == 1}
    assert top == AT_THE_TOP
    folders = {name.split("/")[1] for name in tracked("docs/*") if name.count("/") > 1}
    assert folders <= set(FOLDERS)


def test_every_page_stands_in_the_menu() -> None:
    """docs/README.md is the menu of the site (docs/conf.py)."""
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    listed = {(ROOT / "docs" / target).resolve() for target in _LINK.findall(index)}
    missing = [page for page in PAGES if page.startswith("docs/") and (ROOT / page) not in listed]
    assert missing == ["docs/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_a_row_of_a_table_can_be_read_in_a_terminal(page: str) -> None:
    """What is longer stands below the table, as a list."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("|") and len(line) >= 160] == []
