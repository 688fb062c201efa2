"""Canaries: root's password, its hash and the host keys go to the guest's disk and nowhere else.

While each word runs, every process that it starts is looked at (command line and environment);
afterwards every file below the output folder is searched, also inside what is compressed, and what
another user of the machine can read.
"""

import gzip
import lzma
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from tests.conftest import require
from tests.onlooker import Onlooker
from tests.workshop import ROOT, Workshop

pytestmark = [pytest.mark.integration, pytest.mark.build]

GUEST = "canary"
WORDS = (
    ("plan", f"name={GUEST}"),
    ("build", f"name={GUEST}"),
    ("why", f"name={GUEST}"),
    ("check", f"name={GUEST}"),
    ("publish", f"name={GUEST}", "unproven=yes"),
    ("lock", f"name={GUEST}"),
    ("gc", "dry=yes"),
    ("guests",),
)
MOST_BYTES = 64 << 20  # of a file that is unpacked
_UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"\x28\xb5\x2f\xfd": lambda content: (
        zstandard.ZstdDecompressor().decompressobj().decompress(content)
    ),
    b"\xfd7zXZ\0": lzma.decompress,
}
# the disks, and what is kept to build the guest again
_ALLOWED = re.compile(
    rf"identity/{GUEST}/ssh_host_\w+_key|(guests/{GUEST}|volumes/{GUEST}|published/{GUEST}/.+)/disk\.img"
)


@dataclass
class Bench:
    """A workshop that others may enter, and the secrets that must not be seen in it."""

    workshop: Workshop
    folder: Path
    password: str

    @property
    def output(self) -> Path:
        return self.workshop.output

    def secrets(self) -> dict[str, str]:
        """Every secret, by what it is; the hash as the guest's own disk has it."""
        disk = self.output / "guests" / GUEST / "disk.img"
        asked = ["debugfs", "-R", "cat /etc/shadow", str(disk)]
        shadow = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        root = next(line for line in shadow.splitlines() if line.startswith("root:"))
        found = {"password": self.password, "hash": root.split(":")[1]}
        assert found["hash"].startswith("$")
        for key in (self.output / "identity" / GUEST).glob("ssh_host_*_key"):
            found[key.name] = key.read_text().splitlines()[2]
        assert len(found) >= 4
        return found


@pytest.fixture(scope="module")
def bench(workshop: Workshop) -> Iterator[Bench]:
    require(os.geteuid() == 0, "another user's view needs root")
    workshop.built("test-drbd")
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "output").mkdir()
    for name in ("store", "cache"):
        subprocess.run(["cp", "-a", workshop.output / name, folder / "output"], check=True)
    guests = folder / "guests"
    guests.mkdir()
    password = f"pw-{secrets.token_hex(16)}"
    (folder / "password").write_text(f"{password}\n")
    (folder / "password").chmod(0o600)
    (guests / f"{GUEST}.toml").write_text(
        'suite = "bookworm"\nsize = "1G"\nswap = "64M"\npackages = ["drbd-utils"]\n'
        f'root_password_file = "{folder / "password"}"\nvnc = true\n'
    )
    yield Bench(Workshop(folder / "output", guests), folder, password)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def onlooker(bench: Bench) -> Onlooker:
    """What was to be seen of processes while all words ran; their own texts are kept as files."""
    # the rest is made meanwhile; the password is there from the first moment
    onlooker = Onlooker((bench.password.encode(),))
    with onlooker:
        for number, words in enumerate(WORDS):
            events = f"events={bench.output / 'events.jsonl'}"
            outcome = bench.workshop.doit(*words, *([] if words[0] == "gc" else [events]))
            assert outcome.code == 0, outcome.said
            (bench.output / f"said-{number}").write_text(outcome.said)
    return onlooker


def test_no_process_has_the_password_in_its_arguments_or_environment(onlooker: Onlooker) -> None:
    assert onlooker.seen == {}
    assert len(onlooker.processes) > 20
    assert onlooker.rounds > 100


def test_no_process_of_another_build_has_the_hash_or_a_key(
    bench: Bench, onlooker: Onlooker
) -> None:
    """Once they are known: the guest half again, from the kept identity."""
    words = tuple(text.encode() for text in bench.secrets().values())
    with Onlooker(words) as again:
        spec = bench.workshop.guests / f"{GUEST}.toml"
        spec.write_text(spec.read_text().replace('"64M"', '"65M"'))
        outcome = bench.workshop.doit("build", f"name={GUEST}")
        assert outcome.code == 0, outcome.said
    assert again.seen == {}
    assert len(again.processes) > 5


def test_every_file_below_the_output_folder_is_searched(bench: Bench, onlooker: Onlooker) -> None:
    words = bench.secrets()
    found = find_words(bench.output, words)
    for path in found:
        place = path.relative_to(bench.output).as_posix()
        assert _ALLOWED.fullmatch(place), place
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, place
        assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0, place
    known = {path.relative_to(bench.output).parts[0] for path in found}
    assert known == {"guests", "identity", "published", "volumes"} - missing(bench.output)


def missing(output: Path) -> set[str]:
    """The disk is in one place until the next build: a hard link or a move, as the stage likes."""
    return {"volumes"} if not list((output / "volumes" / GUEST).glob("disk.img")) else set()


def find_words(folder: Path, words: dict[str, str]) -> list[Path]:
    """Files that hold one of the words, as they are or compressed."""
    patterns = [text for word in words.values() for text in ("-e", word)]
    grep = ["grep", "-rlaF", "--devices=skip", *patterns, str(folder)]
    done = subprocess.run(grep, capture_output=True, text=True, check=False)
    found = [Path(line) for line in done.stdout.splitlines()]
    for path in folder.rglob("*"):
        if "cache" in path.relative_to(folder).parts[:1]:
            continue  # the mirror's own files, compressed by it
        if path.is_file() and not path.is_symlink() and path.stat().st_size < MOST_BYTES:
            with path.open("rb") as stream:
                head = stream.read(6)
            unpack = next(
                (one for magic, one in _UNPACKERS.items() if head.startswith(magic)), None
            )
            if unpack and any(
                word.encode() in unpack(path.read_bytes()) for word in words.values()
            ):
                found.append(path)
    return found


def test_another_user_of_the_machine_reads_none_of_it(bench: Bench, onlooker: Onlooker) -> None:
    patterns = [text for word in bench.secrets().values() for text in ("-e", word)]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    grep = [*nobody, "grep", "-rlaF", *patterns, str(bench.folder)]
    done = subprocess.run(grep, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode != 0


def test_no_program_leaves_a_core_dump(bench: Bench) -> None:
    """A core holds what a process knows: none is written, whatever this machine's setting is."""
    script = (
        "import sys; sys.argv[1:] = ['guests']\n"
        "from pipeline.graph import Graph; Graph.load()\n"
        "from pipeline.process import run\n"
        "print(run(['sh', '-c', 'ulimit -c; ulimit -Hc']), end='')\n"
    )
    done = subprocess.run(
        ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh", sys.executable, "-c", script],
        cwd=ROOT,
        env=bench.workshop.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "0"]
