"""What the rootfs stage does, in small: disk-image-create in a cage."""

import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.stages.dib.dib import prepare_program, program_environment
from pipeline.walls.cage import caged, make_room
from tests.workshop import run_program

ELEMENTS = Path(__file__).resolve().parents[2] / "elements"
EPOCH = 1_700_000_000


@dataclass(frozen=True)
class Host:
    """The build host's suite and sources, and what was made from them once."""

    suite: str
    distro: str
    sources: Path
    lists: Path
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
    is_alone: bool = False,
    timeout_s: float = 300,
) -> Build:
    # `is_alone`: without the network, as a guest's elements are (tests fetch packages)
    make_room(work)
    library = work.with_name(f"{work.name}-lib")
    environment = {
        **program_environment(library),
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
    prepare_program(library)
    command = ["bash", library / "disk-image-create", "-n", "-t", "raw", "-o", work / "image"]
    given = [Path(value) for value in environment.values() if value.startswith("/")]
    readable = [host.sources, host.lists, host.bases[init], library, ELEMENTS, *elements_path]
    readable += [path for path in given if path.exists() and work not in (path, *path.parents)]
    enter = caged(
        [*command, "domu", *elements], room=work, readable=readable, shares_network=not is_alone
    )
    argv = ["setpriv", "--pdeathsig", "KILL", "--", *enter]
    done = run_program(argv, environment, cwd=work, timeout_s=timeout_s)
    return Build(done.returncode, done.stdout, work / "rootfs.tar", work)
