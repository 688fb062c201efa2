"""The files that a spec names: whether they are there, and whether its SSH keys are sound."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipeline import ROOT
from pipeline.errors import Problem
from pipeline.spec.layers import Merged
from pipeline.spec.mistakes import suggest_nearest
from pipeline.spec.model import Spec
from pipeline.spec.ssh_keys import find_keys

MIRRORS = ROOT / "mirrors"


def find_missing_files(spec: Spec, merged: Merged, *, fallback: str) -> list[Problem]:
    """A problem for each file or folder that does not exist, and for each unsound SSH key."""

    def source(key: str) -> str:
        return merged.sources.get(key, fallback)

    problems = [
        Problem(source(key), key, f"{path}: no such {kind}", hint)
        for key, path, kind, hint in _find_missing(spec)
    ]
    _, unsound = find_keys(spec.authorized_keys, spec.suite_facts, source=source("authorized_keys"))
    return problems + unsound


def _find_missing(spec: Spec) -> Iterator[tuple[str, str, str, str]]:
    files = {
        "kernel": spec.kernel if spec.kernel_source == "files" else "",
        "initrd": spec.initrd,
        "keyring": spec.keyring,
        "root_password_file": "" if spec.root_password_file == "-" else spec.root_password_file,
    }
    for key, path in files.items():
        if path and not os.path.isfile(path):
            yield key, path, "file", ""
    folders = [("modules", spec.modules)] if spec.modules else []
    folders += [("elements_path", path) for path in spec.elements_path]
    for key, path in folders:
        if not os.path.isdir(path):
            yield key, path, "folder", ""
    for key in ("mirror", "guest_mirror"):
        name = getattr(spec, key)
        if name not in ("host", "proxy") and not set(":/") & set(name):
            known = sorted(path.stem for path in MIRRORS.glob("*.toml"))
            if name not in known:
                hint = suggest_nearest(name, known) or "host, a URL, HOST:PORT, or a file there"
                yield key, f"mirrors/{name}.toml", "file", hint
