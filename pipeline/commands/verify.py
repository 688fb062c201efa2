"""What is said of a published version: verified, held against what is known, built again."""

from collections import Counter

from pipeline.artifact.published import require_version
from pipeline.caller import shorten_path
from pipeline.commands.delivery_options import Reproduce, Scan, Verify
from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.errors import UsageError, VerificationError
from pipeline.recipe import Recipe
from pipeline.supply.keys import public_key, read_public_key
from pipeline.supply.reproduction import reproduce as build_again
from pipeline.supply.verification import verify_version
from pipeline.supply.vulnerabilities import scan_version


def verify(recipe: Recipe, _specs: object, asked: Verify) -> None:
    """Every file and every statement of a version; raises VerificationError for the first."""
    project = recipe.project
    if not asked.name and not asked.folder:
        raise UsageError("what is to be verified?", hint="a folder, or name=, as name=web1")
    key = read_public_key(asked.key) if asked.key else public_key(project.keys, "statements")
    folder = asked.folder or require_version(project, asked.name or "", asked.version).folder
    verified = verify_version(folder, key)
    if asked.name and verified.guest != asked.name:
        raise VerificationError(
            f"{folder} is a version of {verified.guest}, not of {asked.name}",
            hint="somebody has put it there: take this version again from where it was made",
        )
    ANSWER.add(verified.guest, folder=str(folder), **verified.as_json())
    print_line(f"{verified.guest} is what was published: {shorten_path(folder)}")
    for line in verified.describe():
        print_line(f"  {line}")


def scan(recipe: Recipe, _specs: object, asked: Scan) -> None:
    """What is known against the packages of a published version."""
    version = require_version(recipe.project, asked.name, asked.version)
    findings = scan_version(recipe.project, asked.name, version.folder, asked.db, fail=asked.fail)
    ANSWER.add_findings(asked.name, findings, version=version.name)
    if not asked.json_form:
        print_findings(findings)
    failed = Counter(finding.level for finding in findings)["error"]
    print_line(f"{asked.name} {version.name}: {len(findings)} known vulnerabilities")
    if failed:
        raise VerificationError(
            f"{asked.name}: {failed} of its vulnerabilities are {asked.fail} or worse",
            hint=f"build it with today's packages: doit build name={asked.name}",
        )


def reproduce(recipe: Recipe, _specs: object, asked: Reproduce) -> None:
    """A published version built again from its lock; raises VerificationError for other bytes."""
    version = require_version(recipe.project, asked.name, asked.version)
    findings = build_again(recipe.project, version, asked.name)
    ANSWER.add_findings(asked.name, findings, version=version.name)
    if not asked.json_form:
        print_findings(findings)
    differ = [finding.subject for finding in findings if finding.level == "error"]
    same = sum(finding.level == "ok" for finding in findings)
    if differ:
        raise VerificationError(
            f"{asked.name} {version.name} cannot be reproduced: {differ[0]} is another one"
            + (f", and {len(differ) - 1} more" if differ[1:] else ""),
            hint="what is said to be `not as it was then` is what to look at first",
        )
    print_line(f"{asked.name} {version.name} is reproduced: {same} files, bit for bit")
