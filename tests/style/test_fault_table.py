"""The table of faults (tests/host/faults.md) counts the tests that cause them."""

import subprocess
import sys

from tests.host.fault_table import BEGIN, END, PAGE, ROOT

# what a mirror may do to a build; each is caused at least where it says
WANTED = (
    *("404", "500", "hang", "slow drip", "truncated", "wrong size", "wrong hash", "tampered"),
    *("expired", "unsigned", "other suite", "redirect loop"),
    "index and Release of different hours",
    *("TLS: self-signed", "password needed", "disk full", "revoked key", "expired signature"),
)


def test_the_table_of_faults_is_what_the_tests_cause() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "tests.host.fault_table"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    written = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert written == f"\n{said}\n", "python -m tests.host.fault_table --write"
    names = {line.split(" | ")[0].removeprefix("| ") for line in said.splitlines() if "|" in line}
    assert not set(WANTED) - names
