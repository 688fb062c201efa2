"""`python -m tests.suites [--write] [SUITE...]` builds every release that the mirror has.

`--write` notes what came of it in docs/reference/suites.json and makes the page of it, and of the
proofs that are known; `DOMU_OUTPUT` names a folder that is kept.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from pipeline.suites import SUITES
from pipeline.suites.accounts import BUILT, PAGE, read_accounts, read_proven, render_page
from tests.suites.release import Releases


def main() -> int:
    """The command; 1 when a release that is there could not be built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[[], *SUITES], metavar="SUITE")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--page", action="store_true", help="build nothing, make the page anew")
    options = parser.parse_args()
    accounts, failed = read_accounts(), []
    with tempfile.TemporaryDirectory(prefix="suites-") as scratch:
        output = Path(os.environ.get("DOMU_OUTPUT", f"{scratch}/output")).absolute()
        releases = Releases.lay_out(Path(scratch) / "site", output)
        for name in () if options.page else options.suites or SUITES:
            try:
                accounts[name] = account = releases.account_for(name)
            except AssertionError as error:
                failed.append(name)
                print(f"{name}: FAILED\n{error}", file=sys.stderr)
                continue
            print(f"{name}: {account.kernel or 'not built'} {account.answer}".rstrip(), flush=True)
    if options.write or options.page:
        table = {name: asdict(accounts[name]) for name in SUITES if name in accounts}
        BUILT.write_text(json.dumps(table, indent=1) + "\n")
        PAGE.write_text(render_page(SUITES, accounts, read_proven()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
