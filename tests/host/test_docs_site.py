"""`doit docs`: a site that is whole, and asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
_TARGET = re.compile(r"<(\w+)[^>]*?\s(?:href|src)=\"([^\"#?]*)")


def test_the_site_is_built_whole_and_needs_no_network_to_be_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "docs"],
        cwd=ROOT,
        env={**os.environ, "DOMU_OUTPUT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    site = tmp_path / "docs"
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
    assert not list((tmp_path / "scratch").iterdir())
