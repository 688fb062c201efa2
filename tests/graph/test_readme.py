"""README's first guest, typed as it stands there."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workshop import ROOT, Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]

_README = (ROOT / "README.md").read_text(encoding="utf-8")
_CODE = [line.removeprefix("    ") for line in _README.splitlines() if line.startswith("    ")]
# what reports of a build differ in: times, fingerprints, the folder and why a stage ran
_VARIES = re.compile(r"(, )?\d+(\.\d)? s|-[0-9a-f]{8}\b|\([^M]*\)$|\S*/(?=guests/web1)|\d+(?= MiB)")


def typed(command: str) -> list[str]:
    """The words of README's line for this command."""
    (line,) = [line for line in _CODE if line.startswith(f"./doit {command} ")]
    return shlex.split(line)[1:]


def test_the_first_guest_of_readme_is_built_as_shown_checked_and_installed(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests = tmp_path / "guests"
    guests.mkdir()
    shutil.copy(ROOT / "guests/defaults.toml", guests)
    (tmp_path / ".ssh").mkdir()
    key = tmp_path / ".ssh/id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOMU_ROOT", str(tmp_path / "host"))
    shop = Workshop(workshop.output, guests)

    built = shop.doit(*typed("create"))

    assert built.code == 0, built.said
    said = [_VARIES.sub("", line).split() for line in built.said.splitlines()]
    start = next(number for number, line in enumerate(_CODE) if line.startswith("  mirror "))
    end = next(number for number, line in enumerate(_CODE) if line.startswith("  log in:"))
    for line in _CODE[start : end + 1]:
        if line.startswith("  made:"):  # here most of it is there already
            continue
        shown = _VARIES.sub("", line.replace(" built ", " ").replace(" reused ", " ")).split()
        known = [[word for word in words if word not in ("built", "reused")] for words in said]
        assert shown in known, f"{line} is not in\n{built.said}"
    assert "web1: nobody" not in built.said

    shop.doit(*typed("install"), ends=0)
    assert (tmp_path / "host/etc/xen/web1.cfg").is_file()
