"""What stands in a report: read from the artifact and from what it was made of, each with a bound.

Names, versions and descriptions of packages come from strangers. They are texts here, and escaped
where the page is written.
"""

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.record import read_record
from pipeline.artifact.sums import DISK_SUMS, SUMS, read_sum_file
from pipeline.check import examine
from pipeline.errors import Finding, PipelineError, UsageError
from pipeline.files import Damaged, damaged, read_bytes, read_table
from pipeline.guest.login import find_login
from pipeline.mirror.snapshot import SNAPSHOT
from pipeline.mirror.stanzas import read_stanzas
from pipeline.proof.names import FOLDER, PROOF, SCREENSHOT
from pipeline.proof.readiness import read_built_spec
from pipeline.proof.seals import Verdict, read_verdict
from pipeline.recipe import KNOWN_HOSTS, Recipe
from pipeline.spec import Spec
from pipeline.store.store import BuildInfo, Store, read_buildinfo
from pipeline.xen import xl
from pipeline.xen.boot import Direct
from pipeline.xen.domain import Domain

MOST_PACKAGES, MOST_LETTERS = 5000, 200
_STATUS_BYTES, _PICTURE_BYTES, _CONFIG_BYTES = 16 << 20, 2 << 20, 256 << 10
_PNG = b"\x89PNG\r\n\x1a\n"
_KNOWN_SIZE = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class Package:
    """An installed package; `kib` is its Installed-Size, 0 where nobody says."""

    name: str
    version: str
    kib: int = 0
    summary: str = ""


@dataclass(frozen=True)
class Proof:
    """What the last boot under Xen showed; `picture` is a PNG in base64, "" without."""

    verdict: Verdict
    checks: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] | None = None
    picture: str = ""


@dataclass(frozen=True)
class Contents:
    """All that a report says of a guest."""

    spec: Spec
    folder: Path
    domain: Domain
    configuration: str
    packages: tuple[Package, ...]
    stages: Mapping[str, BuildInfo]
    sources: tuple[Mapping[str, Any], ...]
    kernel: Mapping[str, str]
    proof: Proof
    findings: tuple[Finding, ...]
    unchecked: str
    files: tuple[tuple[str, int, str], ...]
    host_keys: tuple[str, ...]

    @property
    def login(self) -> tuple[str, ...]:
        """What to type, or that nobody can."""
        return tuple(find_login(self.spec, self.folder / KNOWN_HOSTS).lines)

    @property
    def boot(self) -> Mapping[str, str]:
        """How it gets its kernel, in words."""
        boot = self.domain.boot
        if isinstance(boot, Direct):
            words = [f"root={boot.root}" if boot.root else "", boot.cmdline]
            return {
                "Kernel": boot.kernel,
                "Ramdisk": boot.ramdisk or "none",
                "Command line": " ".join(filter(None, words)),
            }
        kind = type(boot).__name__.lower()
        return {"Kernel": f"the one that is installed in the guest, found by {kind}"}


def read_contents(recipe: Recipe, spec: Spec) -> Contents:
    """Everything about a built guest; UsageError where it was not built, Damaged for a bad file."""
    folder = recipe.project.artifact(spec.name)
    config = folder / f"{spec.name}.cfg"
    if not config.is_file():
        raise UsageError(
            f"{spec.name} is not built: there is nothing to report on",
            hint=f"doit build name={spec.name}",
        )
    text = read_bytes(config, limit=_CONFIG_BYTES).decode("utf-8", "replace")
    try:
        domain = xl.parse(text)
    except ValueError as error:
        raise Damaged(f"{config}: {error}", hint=f"doit build name={spec.name}") from error
    stages = read_record(folder)
    own = read_buildinfo(folder)
    made = {**stages, **({"config": own} if own else {})}
    findings, unchecked = _examine(recipe, spec)
    return Contents(
        spec=read_built_spec(folder, spec.name),
        folder=folder,
        domain=domain,
        configuration=text,
        packages=tuple(_read_packages(recipe, folder, stages)),
        stages={name: made[name] for name in recipe.stages if name in made},
        sources=tuple(_read_sources(recipe, stages)),
        kernel=dict(_describe_kernel(folder)),
        proof=_read_proof(folder),
        findings=tuple(findings),
        unchecked=unchecked,
        files=tuple(_list_files(folder)),
        host_keys=tuple(read_bytes(folder / KNOWN_HOSTS).decode("ascii", "replace").splitlines()),
    )


def _examine(recipe: Recipe, spec: Spec) -> tuple[list[Finding], str]:
    """What `doit check` finds, but for the sums, or why it cannot be asked."""
    try:
        return examine(recipe, spec, with_sums=False), ""
    except PipelineError as error:
        return [], error.brief


def _describe_kernel(folder: Path) -> Iterator[tuple[str, str]]:
    path = folder / "kernel.json"
    table = read_table(path, "a kernel's record")
    try:
        yield "Kernel release", str(table.get("abi") or "that of the package in the guest")
        for name, facts in table.get("packages", {}).items():
            yield name, str(facts[0])
        yield "Modules in the ramdisk", ", ".join(table.get("initrd_modules", ())) or "none"
    except (AttributeError, TypeError, LookupError) as error:
        raise damaged(path, "a kernel's record", error) from error


def _read_packages(
    recipe: Recipe, folder: Path, stages: Mapping[str, BuildInfo]
) -> Iterator[Package]:
    """Largest first; without sizes where the store has let go of what the guest was made from."""
    known = {}
    if "rootfs" in stages:
        made = Store.of(recipe.project).location("rootfs", stages["rootfs"].fingerprint)
        try:
            status = read_bytes(made / "dpkg-status", limit=_STATUS_BYTES)
            installed = parse_status(status.decode(errors="replace"))
            known = {package.name: package for package in installed}
        except FileNotFoundError:
            pass
    listed = (line.split() for line in read_bytes(folder / "manifest").decode().splitlines())
    packages = [
        known.get(words[0], Package(words[0], words[1])) for words in listed if len(words) > 1
    ]
    yield from sorted(packages, key=lambda package: (-package.kib, package.name))[:MOST_PACKAGES]


def parse_status(status: str) -> Iterator[Package]:
    """The installed packages of /var/lib/dpkg/status."""
    for entry in read_stanzas(status):
        if entry.get("status", "").endswith(" installed"):
            size = entry.get("installed-size", "")
            yield Package(
                name=entry.get("package", "")[:MOST_LETTERS],
                version=entry.get("version", "")[:MOST_LETTERS],
                kib=int(size) if _KNOWN_SIZE.fullmatch(size) else 0,
                summary=entry.get("description", "").partition("\n")[0][:MOST_LETTERS],
            )


def _read_sources(recipe: Recipe, stages: Mapping[str, BuildInfo]) -> Iterator[Mapping[str, Any]]:
    """The signed states that the packages came from; none where the store has let go of them."""
    if "mirror" not in stages:
        return
    made = Store.of(recipe.project).location("mirror", stages["mirror"].fingerprint)
    try:
        table = read_table(made / SNAPSHOT, "a snapshot")
    except FileNotFoundError:
        return
    yield from (source for source in table.get("sources", ()) if isinstance(source, dict))


def _read_proof(folder: Path) -> Proof:
    verdict = read_verdict(folder, is_glance=True)
    try:
        record = json.loads(read_bytes(folder / FOLDER / PROOF))
        checks, facts = tuple(record["checks"]), record["facts"]
    except (OSError, PipelineError, ValueError, KeyError, TypeError):
        return Proof(verdict)
    return Proof(verdict, checks, facts, read_picture(folder / FOLDER / SCREENSHOT))


def read_picture(path: Path) -> str:
    """A PNG of at most 2 MiB in base64."""
    try:
        picture = read_bytes(path, limit=_PICTURE_BYTES)
    except (FileNotFoundError, PipelineError):
        return ""
    return base64.b64encode(picture).decode() if picture.startswith(_PNG) else ""


def _list_files(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Each file of the artifact: name, bytes on disk, digest."""
    sums: dict[str, str] = {}
    for name in (SUMS, DISK_SUMS):
        if (folder / name).is_file():
            sums.update(read_sum_file(folder / name))
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.is_symlink():
            yield path.name, path.lstat().st_blocks * 512, sums.get(path.name, "")


def show_time(seconds: float) -> str:
    """Seconds since 1970 as UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
