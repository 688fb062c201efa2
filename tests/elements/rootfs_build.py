"""What the rootfs stage does, in small: disk-image-create in namespaces that die with it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.host.dib import prepare_program, program_environment

HERE = Path(__file__).resolve().parent
ELEMENTS = HERE.parents[1] / "elements"
EPOCH = 1_700_000_000


@dataclass(frozen=True)
class Host:
    """The build host's suite and sources, and what was made from them once."""

    suite: str
    distro: str
    sources: Path
    lists: Path
    debs: Path
    bases: Mapping[str, Path]


@dataclass(frozen=True)
class Build:
    returncode: int
    log: str
    tar: Path
    work: Path

    def members(self) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(self.tar) as archive:
            return {member.name.removeprefix("./"): member for member in archive}

    def text(self, name: str) -> str:
        with tarfile.open(self.tar) as archive:
            content = archive.extractfile(f"./{name}")
            assert content is not None, f"{name} is no file"
            return content.read().decode()


def build_rootfs(
    host: Host,
    work: Path,
    elements: Sequence[str],
    *,
    init: str = "systemd",
    settings: Mapping[str, str] | None = None,
    elements_path: Sequence[Path] = (),
    in_user_namespace: bool = False,
) -> Build:
    work.mkdir()
    environment = {
        **program_environment(work / "lib"),
        "HOME": str(work),
        "TMPDIR": str(work),
        "TMP_DIR": str(work),
        "USER": "root",
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "ELEMENTS_PATH": ":".join(map(str, [ELEMENTS, *elements_path])),
        "DIB_IMAGE_CACHE": str(work / "cache"),
        "DIB_LOCKFILES": str(work / "locks"),
        "DIB_IMAGE_SIZE": "1",
        "DIB_INIT_SYSTEM": init,
        "DIB_RELEASE": host.suite,
        "DISTRO_NAME": host.distro,
        "DIB_DOMU_BASE": str(host.bases[init]),
        "DIB_DOMU_EXPORT": str(work / "rootfs.tar"),
        **(settings or {}),
    }
    enter = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child=KILL",
    ]
    enter += ["--propagation", "private", "--mount-proc", "--"]
    if in_user_namespace:
        enter = [sys.executable, str(HERE / "user_namespace.py"), *enter]
    program = [str(word) for word in prepare_program(work / "lib")]
    command = [*program, "-n", "-t", "raw", "-o", str(work / "image"), "domu", *elements]
    done = subprocess.run(
        [*enter, "private-dev", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=work,
        check=False,
        timeout=300,
    )
    return Build(done.returncode, done.stdout, work / "rootfs.tar", work)
