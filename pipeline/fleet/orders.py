"""What travels to a worker: a stage of a guest, with all that this machine alone knows of it.

It is JSON: the spec's values, the apt sources that `mirror = "host"` stands for here, the site's
elements and mirrors. No secret of a guest is in it: the golden half has none.
"""

import base64
import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.apt_sources import read_host_sources
from pipeline.mirror.definition import read_definition
from pipeline.mirror.mirrors import HOST, list_named
from pipeline.mirror.proxy.settings import MANAGED
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.model import SECRET_KEYS

MOST_SITE_BYTES = 4 << 20
SOURCES = "sources.list"
_OF_THIS_MACHINE = {
    "elements_path": "elements_path names folders of this machine",
    "role": "roles are scripts of this machine",
    "adopted": "the tree that it is made of was adopted here",
    "keyring": "keyring names a file of this machine",
    "initrd": "initrd names a file of this machine",
    "modules": "modules names a folder of this machine",
}


def find_tie(spec: Spec, project: Project) -> str:
    """Why a guest's golden half can be built on this machine alone; "" where any can."""
    for key, why in _OF_THIS_MACHINE.items():
        if getattr(spec, key):
            return why
    if spec.kernel_source != "package":
        return "its kernel is a file of this machine"
    return find_mirror_tie(spec, project)


def find_mirror_tie(spec: Spec, project: Project) -> str:
    """Why this machine alone reaches a guest's mirror; "" where any does."""
    for mirror in dict.fromkeys((spec.mirror, spec.guest_mirror)):
        if mirror == MANAGED:
            return 'mirror = "proxy" is a program of this machine'
        if mirror == HOST and any(source.uri.startswith("file:") for source in read_host_sources()):
            return "its mirror is a folder of this machine"
        if mirror.startswith("file:"):
            return "its mirror is a folder of this machine"
        if mirror in list_named(project.mirrors):
            definition = read_definition(project.mirrors / f"{mirror}.toml")
            if definition.credentials:
                return f"mirrors/{mirror}.toml has credentials, which do not travel"
            if definition.keyring or any(url.startswith("file:") for url in definition.url):
                return f"mirrors/{mirror}.toml names files of this machine"
    return ""


def write_sources() -> str:
    """This machine's apt sources, as a sources.list: what `mirror = "host"` means here."""
    return "".join(
        f"deb {source.uri} {source.suite} {' '.join(source.components)}\n"
        for source in read_host_sources()
    )


def pack_site(project: Project) -> str:
    """The site's elements and the named mirrors: as base64, equal for equal files.

    UsageError where that is too much to travel with every order.
    """
    files: dict[str, dict[str, Any]] = {}
    elements = project.site / "elements" if project.site else None
    for path in sorted(elements.rglob("*")) if elements else ():
        name = path.relative_to(elements.parent) if elements else path
        if path.is_symlink():
            files[str(name)] = {"link": os.readlink(path)}
        elif path.is_file():
            files[str(name)] = _pack_file(path)
    for path in sorted(project.mirrors.glob("*.toml")):
        files[f"mirrors/{path.name}"] = _pack_file(path)
    content = gzip.compress(json.dumps(files, sort_keys=True).encode(), mtime=0)
    if len(content) > MOST_SITE_BYTES:
        raise UsageError(
            f"{project.site}: elements and mirrors are {len(content) >> 20} MiB when packed",
            hint=f"a fleet takes {MOST_SITE_BYTES >> 20} MiB: fetch large files in the elements",
        )
    return base64.b64encode(content).decode()


def unpack_site(packed: str, folder: Path) -> None:
    """The same as files below `folder`, a new one; VerificationError for a name that leads out."""
    files = json.loads(gzip.decompress(base64.b64decode(packed)))
    for room in ("elements", "mirrors"):
        (folder / room).mkdir()
    # links last: nothing is written through one
    for name, file in sorted(files.items(), key=lambda item: "link" in item[1]):
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts:
            raise VerificationError(f"{name!r} in an order leads out of its folder")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "link" in file:
            path.symlink_to(file["link"])
        else:
            path.write_bytes(base64.b64decode(file["content"]))
            path.chmod(0o755 if file["runs"] else 0o644)


def _pack_file(path: Path) -> dict[str, Any]:
    content = base64.b64encode(path.read_bytes()).decode()
    return {"content": content, "runs": os.access(path, os.X_OK)}


def write_order(spec: Spec, stage: str, states: Mapping[str, str]) -> dict[str, Any]:
    """What an order says of a stage, as JSON has it.

    `states` are the identities of the stages that were built here.
    """
    values = spec.model_dump(mode="json", exclude_defaults=True, exclude=set(SECRET_KEYS))
    values.pop("root_password_file", None)
    return {"stage": stage, "spec": values, "states": dict(states)}
