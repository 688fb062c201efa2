"""Which advisories each upload of Xen to Debian fixed: the table that `doit doctor` looks into.

`python -m tests.xen_uploads CHANGELOG...` writes it anew out of one changelog for each version of
Xen: changelog.Debian.gz of xen-hypervisor-4.17-amd64, as it is in the newest package (apt-get
download). To be done with each security update of Xen.
"""

import gzip
import re
import sys
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

from debian.changelog import Changelog

from pipeline.dom0.doctor.advisories import TABLE

# "XSA-509 CVE-2026-62437" below a line of its own; "- XSA-513 applies to..." is one left out
_FIXED = re.compile(r"^ {6,}XSA-(\d+)\b", re.MULTILINE)


def read_uploads(changelog: str) -> Iterator[str]:
    """A line for each upload of the newest version of Xen, the oldest first.

    An upload has the date of its changelog, which is Xen's cc_compile_date too.
    """
    blocks = list(Changelog(changelog, strict=False))
    branch = re.match(r"\d+\.\d+", str(blocks[0].version))
    assert branch is not None
    for block in reversed(blocks):
        if str(block.version).startswith((f"{branch[0]}.", f"{branch[0]}~")):
            fixed = _FIXED.findall("\n".join(map(str, block.changes())))
            when = parsedate_to_datetime(str(block.date)).astimezone(UTC)
            yield " ".join(
                [str(block.version), f"{when:%Y-%m-%dT%H:%M:%SZ}", *sorted(fixed, key=int)]
            )


def main(paths: list[str]) -> int:
    """Write the table."""
    texts = [gzip.decompress(Path(path).read_bytes()).decode() for path in paths]
    lines = [line for text in texts for line in read_uploads(text)]
    TABLE.write_text("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
