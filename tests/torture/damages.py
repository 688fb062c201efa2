"""Any file of output/ damaged in any way, then a word: mended or refused, never used."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.damages import DAMAGES as DONE
from tests.damages import Damage, instead
from tests.torture.kills import GUEST, NAME, WrongAfterwards
from tests.torture.program import Ground
from tests.torture.verdict import bytes_of, digest, find_wrong_sums

WORDS: dict[str, tuple[str, ...]] = {
    "build": ("build", NAME),
    "another": ("build", NAME, "hostname=web2"),
    "publish": ("publish", NAME, "unproven=yes"),
    "install": ("install", NAME, "unproven=yes"),
    "lock": ("lock", NAME),
    "gc": ("gc", "keep=0"),
    "why": ("why", NAME),
    "guests": ("guests",),
}
CODES = (0, 1, 2, 3, 4, 5)


DAMAGES: dict[str, Damage] = {
    **{name: DONE[name] for name in ("flip", "cut", "empty", "gone", "folder", "FIFO")},
    "garbage": lambda path: path.write_bytes(random.Random(1).randbytes(4096)),
    "link": instead(lambda path: path.symlink_to("/etc/hostname")),
    "dangling link": instead(lambda path: path.symlink_to("/nonexistent/file")),
    "owner": lambda path: os.chown(path, 12345, 12345),
    "mode": lambda path: path.chmod(0),
    "future": lambda path: os.utime(path, (time.time() + 4e8, time.time() + 4e8)),
}


@dataclass
class Damages:
    """A built, published and locked guest, copied for each damage."""

    folder: Path
    seed: int
    random: random.Random = field(init=False)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.ground = Ground.make(self.folder / "ground", GUEST)
        self.run(*WORDS["another"])
        self.other = bytes_of(self.ground)
        for word in ("build", "publish", "lock"):
            self.run(*WORDS[word])
        self.wanted = bytes_of(self.ground)
        self.disk = digest(self.ground.output / f"guests/{GUEST}/disk.img")
        _copy(self.ground.root, self.folder / "kept")

    def run(self, *argv: str) -> None:
        code, said = self.ground.run(*argv)
        assert code == 0, said

    def damage_one(self) -> None:
        """One damage and one word."""
        _copy(self.folder / "kept", self.ground.root)
        output = self.ground.output
        files = sorted(
            path for path in output.rglob("*") if path.is_file() and not path.is_symlink()
        )
        path = self.random.choice(files)
        what, word = self.random.choice(list(DAMAGES)), self.random.choice(list(WORDS))
        DAMAGES[what](path)
        name = path.relative_to(output)
        text = f"seed {self.seed}: {what} of {name}, then {word}"
        try:
            code, said = self.ground.run(*WORDS[word])
            assert code in CODES, f"exit code {code}"
            assert "Traceback" not in said, said
            assert "a bug of the pipeline" not in said, said
            assert code == 0 or said.count("error: ") == 1, said
            if code == 0:
                self._judge(word, str(name))
        except AssertionError as wrong:
            raise WrongAfterwards(f"{text}: {wrong}") from wrong
        self.outcomes["refused" if code else "mended or not needed"] += 1
        self.outcomes[what] += 1
        self.outcomes[f"then {word}"] += 1

    def _judge(self, word: str, name: str) -> None:
        """What a word that ended well has made is right, whatever was damaged."""
        made = bytes_of(self.ground)
        guest = self.ground.output / f"guests/{GUEST}"
        # a guest writes to its disk: what is on it is its own affair until it is published
        own = ("disk.img", "swap.img")
        if word in ("build", "another"):
            wanted = self.wanted if word == "build" else self.other
            for path, known in wanted.items():
                if path.startswith("guests/") and not path.endswith(own):
                    assert made.get(path) == known, f"{path} is wrong"
            if not name.endswith(own):
                assert made.get(f"guests/{GUEST}/disk.img") == wanted[f"guests/{GUEST}/disk.img"]
                assert not find_wrong_sums(guest)
        elif word == "publish":
            link = self.ground.output / f"published/{GUEST}/current"
            assert not find_wrong_sums(link.resolve())
            assert digest(link.resolve() / "disk.img") == self.disk
        elif word == "install":
            disks = list(self.ground.host.glob("var/lib/xen/images/*/*/disk.img"))
            assert [digest(disk) for disk in disks] == [self.disk]
            kernels = list(self.ground.host.glob("var/lib/xen/kernels/*/vmlinuz"))
            assert [digest(kernel) for kernel in kernels] == [
                self.wanted[f"guests/{GUEST}/vmlinuz"]
            ]
        elif word == "gc":
            assert guest.is_dir()


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", source, target], check=True)
