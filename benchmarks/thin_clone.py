"""A guest as a thin snapshot beside a full copy, on real device-mapper in User-Mode Linux.

`python -m benchmarks.thin_clone OUTPUT NAME`: OUTPUT holds the built guest NAME.
The figures are seconds of the whole process `tests.guest_half`; only their ratio means anything.
"""

import re
import shlex
import sys
import tempfile
from pathlib import Path

from tests.guest_half import ROOT
from tests.uml import run_in_uml

_SCRIPT = """set -e
pvcreate -q /dev/ubdb; vgcreate -q VG0 /dev/ubdb
lvcreate -q -y --config 'activation{{udev_sync=0 udev_rules=0}}' --type thin-pool -L 3G -n pool VG0
took() {{
    what=$1; shift
    begun=$(date +%s.%N)
    "$@"
    echo "took $what $(echo "$(date +%s.%N) $begun" | awk '{{print $1-$2}}')"
}}
half() {{ {python} -m tests.guest_half /run/$1 {store} {name} swap=0 lvm=VG0 lvm_thin=pool $2; }}
took full half one ""
lvremove -q -y VG0/{name}-disk
took first-clone half two clone=cow
lvremove -q -y VG0/{name}-disk
took clone half three clone=cow
"""


def measure(output: Path, name: str) -> dict[str, float]:
    """Seconds of a full copy, of the first clone, which makes the golden volume, and the next."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        disk = work / "pv.img"
        with disk.open("wb") as stream:
            stream.truncate(4 << 30)
        script = _SCRIPT.format(
            python=shlex.quote(sys.executable), store=shlex.quote(str(output / "store")), name=name
        )
        variables = [f"DOMU_GUESTS={shlex.quote(sys.argv[3])}"] if len(sys.argv) > 3 else []
        ended = run_in_uml(
            work,
            ["sh", "-c", script],
            folder=ROOT,
            disks=[disk],
            variables=variables,
            memory="2G",
            timeout_s=1800,
        )
    if ended.status != 0:
        raise SystemExit(f"{ended.output}\n{ended.console}")
    found = re.findall(r"^took (\S+) ([\d.]+)$", ended.output, re.MULTILINE)
    return {what: float(seconds) for what, seconds in found}


if __name__ == "__main__":
    seconds = measure(Path(sys.argv[1]).absolute(), sys.argv[2])
    for what, taken in seconds.items():
        print(f"{what:<12} {taken:7.1f} s  {taken / seconds['full']:5.2f} of a full copy")
