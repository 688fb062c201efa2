"""The question that a migration asks the other host, answered by a real shell."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.dom0.other_host import ASK, OtherHost

pytestmark = pytest.mark.integration
LIST = "Name ID Mem VCPUs State Time(s)\nDomain-0 0 768 2 r----- 21.4\n"
XL = f"""#!/bin/sh
[ -z "$NO_XEN" ] || {{ echo 'xencall: error: Could not obtain handle' >&2; exit 1; }}
case $1 in list) printf '{LIST}' ;; info) echo 'xen_major : 4' ;; esac
"""


def ask(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    xl = folder / "xl"
    xl.write_text(XL)
    xl.chmod(0o755)
    return subprocess.run(
        ["sh", "-s", "--", *words],
        input=ASK,
        env={"PATH": f"{folder}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_what_is_there_is_not_named_and_what_is_not_there_is(tmp_path: Path) -> None:
    strange = tmp_path / "a disk; $(touch gone) = 'b'"
    strange.touch()
    there = (f"path={strange}", "path=/", "user=root", "bridge=lo")
    missing = (f"path={tmp_path}/a disk", "user=no-such-user", "bridge=br-none")

    reply = ask(tmp_path, *there, *missing)

    assert reply.returncode == 0
    host = OtherHost.read("xen2", f"Last login: today\n{reply.stdout}")
    assert host.lacks == set(missing)
    assert (set(host.domains), host.info["xen_major"]) == ({"Domain-0"}, "4")


def test_a_host_without_xen_is_none(tmp_path: Path) -> None:
    reply = ask(tmp_path, "path=/", NO_XEN="1")
    assert (reply.returncode, "Could not obtain handle" in reply.stdout) == (1, True)
