"""`doit check`: what stands in a finished artifact, read without mounting, against its spec.

The image is read once into facts (facts.py); each module below judges one part of them. The sums,
which cost most, are made meanwhile.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pipeline.artifact.sums import DISK_SUMS, SUMS, digest_as, read_sums
from pipeline.check import (
    access,
    boot_disk,
    configuration,
    contents,
    kernels,
    network,
    system,
    template,
)
from pipeline.check.contents import check_sums
from pipeline.check.facts import Facts, read_facts, require_artifact
from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings, shorten, summarize
from pipeline.console.progress import print_line
from pipeline.errors import Finding, VerificationError
from pipeline.files import digest_file
from pipeline.process import require_tools
from pipeline.recipe import Recipe
from pipeline.scratch import remove_abandoned, scratch_folder
from pipeline.spec import Spec

TOOLS = {"dumpe2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "bwrap": "bubblewrap"}

CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    *contents.CHECKS[:1],
    *access.CHECKS,
    *system.CHECKS,
    *network.CHECKS,
    *configuration.CHECKS,
    *kernels.CHECKS,
    *contents.CHECKS[1:],
    *boot_disk.CHECKS,
)

# of a tree that was adopted nobody says what is installed, nor how it is set up
ADOPTED: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    *(contents.check_spec, access.check_host_keys),
    *(system.check_names, system.check_machine_id, network.check_cards),
    *(*configuration.CHECKS, kernels.check_bootability),
    *(contents.check_file_system, contents.check_read),
)

# what is one guest's own comes at its first boot
TEMPLATE: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    *(contents.check_spec, *template.CHECKS, access.check_passwords, network.check_cards),
    *(check for check in system.CHECKS if check not in template.IDENTITY),
    *(*configuration.CHECKS, *kernels.CHECKS, *contents.CHECKS[1:], *boot_disk.CHECKS),
)


def check_guest(recipe: Recipe, spec: Spec, *, as_json: bool = False) -> None:
    """Print every finding on a built guest; VerificationError when one fails. Changes nothing."""
    findings = examine(recipe, spec)
    ANSWER.add_findings(spec.name, findings)
    if not as_json:
        print_findings(findings)
        print_line(f"{spec.name}: {summarize(findings)}")
    failed = [finding for finding in findings if finding.level == "error"]
    if failed:
        error = VerificationError(
            f"{spec.name}: {summarize(findings)}",
            details="\n".join(f"{one.code} {one.subject}: {shorten(one.seen)}" for one in failed),
            hint="each failed line above says what was expected",
        )
        error.guest = spec.name
        raise error


def examine(recipe: Recipe, spec: Spec, *, with_sums: bool = True) -> list[Finding]:
    """What every check says, in order. Raises what require_artifact and read_facts do."""
    more = {"qemu-img": "qemu-utils"} if spec.disk_format != "raw" else {}
    more |= {"qemu-img": "qemu-utils"} if spec.format == "xva" else {}
    more |= {"mcopy": "mtools"} if spec.is_whole else {}
    require_tools(TOOLS | more)
    disk = require_artifact(recipe.project, spec)
    root = recipe.project.scratch
    root.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root)
    with scratch_folder(root, f"check-{spec.name}") as scratch, ThreadPoolExecutor(2) as pool:
        work = scratch / "work"
        work.mkdir(mode=0o700)
        digests = _start_digests(pool, disk.parent) if with_sums else {}
        facts = read_facts(recipe, spec, disk, work)
        findings = judge_facts(facts)
        if with_sums:
            if facts.golden:
                digests[facts.golden.path.name] = partial(digest_file, facts.golden.path)
            findings += check_sums(facts, lambda path: digests[path.name]())
        return findings


def judge_facts(facts: Facts) -> list[Finding]:
    """Every check over the facts, but for the sums."""
    checks = ADOPTED if facts.spec.adopted else TEMPLATE if facts.spec.cloud_init else CHECKS
    return [finding for check in checks for finding in check(facts)]


def _start_digests(pool: ThreadPoolExecutor, folder: Path) -> dict[str, Callable[[], str]]:
    """For each listed file a function that waits for its digest, made in another thread."""
    sums = [folder / name for name in (SUMS, DISK_SUMS) if (folder / name).is_file()]
    listed = read_sums("".join(path.read_text() for path in sums))
    files = [folder / name for name in listed if (folder / name).is_file()]
    files.sort(key=lambda path: path.stat().st_size, reverse=True)  # the longest first
    return {path.name: pool.submit(digest_as, listed[path.name], path).result for path in files}
