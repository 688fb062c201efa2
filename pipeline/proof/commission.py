"""A proof that another machine makes: what it is told of the guest, and what comes back.

The artifact's folder travels by itself. What comes back is the evidence that was written there; it
counts where it is about the very bytes that lie here, and is then this machine's own.
"""

import base64
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.console.progress import print_line
from pipeline.errors import Broken, GuestFailed
from pipeline.files import write_durably
from pipeline.proof.artifact import Artifact, read_artifact
from pipeline.proof.course import Course
from pipeline.proof.evidence import Evidence
from pipeline.proof.names import CONSOLE, FOLDER, PROOF, SCREENSHOT
from pipeline.proof.seals import Seal
from pipeline.proof.session import Asked
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.spec.model import SECRET_KEYS
from pipeline.walls.privacy import make_private

MOST_BYTES = 8 << 20
# of those that no worker could prove, so many at once are proven here
HERE = threading.Semaphore(2)


def prove_elsewhere(
    recipe: Recipe, artifact: Artifact, spec: Spec, asked: Asked
) -> Evidence | None:
    """Have the workers of this run prove it; None where it is to be proven here.

    Raises as a proof here does.
    """
    if recipe.elsewhere is None:
        return None
    if why := _find_tie(artifact, asked):
        print_line(f"  {artifact.name} is proven here: {why}")
        return None
    evidence = Evidence(artifact.name, digests=artifact.digests())
    told = _write(artifact, spec, asked)
    found = recipe.elsewhere.prove(spec, artifact.folder, told)
    if found is None:
        return None
    worker, files = found
    course = Course(recipe, evidence, artifact.folder, artifact.evidence, as_json=asked.as_json)
    course.run(lambda _work: _take(evidence, files, artifact.evidence, worker))
    return evidence


def _find_tie(artifact: Artifact, asked: Asked) -> str:
    """Why it can be proven on this machine alone; "" where any can."""
    if asked.with_xl or asked.netboot:
        return "prove_with=xl and prove_netboot= are about this machine"
    disks = [path for path, _ in artifact.disks]
    for path in (*artifact.boot_files, *disks, *artifact.golden):
        if not (path.is_file() and path.is_relative_to(artifact.folder)):
            return f"{path} is no file of its folder"
    return ""


def _write(artifact: Artifact, spec: Spec, asked: Asked) -> dict[str, Any]:
    """The commission, as JSON has it. Key and password, where there are some, are in it."""
    values = spec.model_dump(mode="json", exclude_defaults=True, exclude=set(SECRET_KEYS))
    if spec.root_password_file or spec.root_password_hash:
        values["root_password_file"] = "-"
    return {
        "spec": values,
        "home": str(artifact.folder),
        "has_sshd": artifact.has_sshd,
        "thorough": asked.thorough,
        "key": base64.b64encode(asked.read_key()).decode(),
        "password": base64.b64encode(asked.read_password()).decode(),
    }


def read_commission(
    folder: Path, told: Mapping[str, Any], work: Path
) -> tuple[Artifact, Spec, Asked]:
    """The artifact whose copy is in `folder`, and what is asked of it; evidence goes to `work`."""
    spec = Spec.model_validate(told["spec"])
    artifact = read_artifact(folder, spec, home=Path(told["home"]))
    artifact = replace(artifact, has_sshd=told["has_sshd"], evidence=work / FOLDER)
    key, password = (_put(work / name, told[name]) for name in ("key", "password"))
    return artifact, spec, Asked(key, thorough=told["thorough"], password=password)


def _put(path: Path, text: str) -> Path | None:
    """A secret as a file; None for none."""
    if not text:
        return None
    make_private(path)
    path.write_bytes(base64.b64decode(text))
    return path


def read_evidence(folder: Path) -> dict[str, str]:
    """The files of a proof as base64, by name. Broken where they are too much to send."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if sum(map(len, files.values())) > MOST_BYTES:
        raise Broken(f"the evidence has more than {MOST_BYTES >> 20} MiB: it is not sent")
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


def _take(evidence: Evidence, files: Mapping[str, bytes], folder: Path, worker: str) -> None:
    """Make the worker's evidence ours. Raises GuestFailed, Broken."""
    own = evidence.digests
    try:
        table = json.loads(files[PROOF])
        evidence.fill(table)
        evidence.console = files[CONSOLE].decode(errors="replace")
        verdict, reason = table["verdict"], str(table["reason"])
        is_same = _bytes_of(table["digests"]) == _bytes_of(own)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Broken(f"what {worker} sent is no evidence: {error!r}") from error
    evidence.facts["proven by"] = worker
    with suppress(KeyError):
        folder.mkdir(exist_ok=True)
        write_durably(folder / SCREENSHOT, files[SCREENSHOT])
    if not is_same:
        raise Broken(
            f"{worker} proved other bytes than those that lie here",
            hint="whoever builds, starts or edits it has to wait: prove it again",
        )
    if verdict == "failed":
        raise GuestFailed(reason)
    if verdict != "proven":
        raise Broken(f"{worker}: {reason or verdict}")


def _bytes_of(seals: Mapping[str, Seal]) -> dict[str, tuple[object, ...]]:
    """What counts of each; when a copy was written says nothing."""
    keys = ("kind", "digest", "size")
    return {name: tuple(seal[key] for key in keys) for name, seal in seals.items()}
