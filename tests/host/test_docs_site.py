"""`doit docs`: a site that is whole, and asks nobody else for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
_TARGET = re.compile(r"<(\w+)[^>]*?\s(?:href|src)=\"([^\"#?]*)")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for both tests: the second installs into what the first left half made."""
    return tmp_path_factory.mktemp("pages")


def build_docs(output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "docs"],
        cwd=ROOT,
        env={**os.environ, "DOMU_OUTPUT": str(output), **environment},
        capture_output=True,
        text=True,
    )


def test_without_a_way_to_pypi_it_is_said_what_to_set(output: Path) -> None:
    done = build_docs(output, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    assert done.returncode == 3
    assert "error: what requirements-docs.lock names cannot be installed" in done.stderr
    assert "PIP_INDEX_URL" in done.stderr
    assert not (output / "docs").exists()


def test_the_site_is_built_whole_and_needs_no_network_to_be_read(output: Path) -> None:
    done = build_docs(output)
    assert done.returncode == 0, done.stderr
    site = output / "docs"
    assert (site / "index.html").is_file()
    assert "lvm" in (site / "searchindex.js").read_text(encoding="utf-8")
    pages = sorted(site.rglob("*.html"))
    written = [*ROOT.glob("docs/*/*.md"), *ROOT.glob("docs/*.md")]
    assert len(pages) > len(written)
    for page in pages:
        for tag, target in _TARGET.findall(page.read_text(encoding="utf-8")):
            where = urlsplit(target)
            assert not where.scheme or tag == "a", f"{page}: {target} is fetched from elsewhere"
            if not where.scheme and target:
                assert (page.parent / unquote(target)).exists(), f"{page}: {target}"
    assert not list((output / "scratch").iterdir())
