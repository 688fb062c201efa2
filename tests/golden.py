"""The table of golden digests: what a fingerprint gave once, it must give on any day and machine.

`python -m tests.golden OUTPUT` adds what an output folder holds; a fingerprint that is there
already with other digests ends it with an error.
"""

import json
import sys
from pathlib import Path

TABLE = Path(__file__).with_name("golden.json")
FILES = {"image": ("golden.img",), "kernel": ("vmlinuz", "initrd.img", "modules.tar")}


def read_table() -> dict[str, dict[str, str]]:
    """Fingerprint -> file name -> sha256 (hex)."""
    table: dict[str, dict[str, str]] = json.loads(TABLE.read_text())
    return table


def digests_of(artifact: Path) -> dict[str, dict[str, str]]:
    """The same for the golden half of one finished guest, from its stages.json."""
    record = json.loads((artifact / "stages.json").read_text())
    return {
        record[stage]["fingerprint"]: {
            name: record[stage]["files"][name]["sha256"]
            for name in names
            if name in record[stage]["files"]
        }
        for stage, names in FILES.items()
    }


def main(output: Path) -> int:
    """Add every guest of an output folder."""
    table = read_table() if TABLE.is_file() else {}
    for artifact in sorted((output / "guests").iterdir()):
        for fingerprint, digests in digests_of(artifact).items():
            if digests and table.setdefault(fingerprint, digests) != digests:
                print(f"{artifact.name}: {fingerprint[:12]} had other digests before")
                return 1
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
