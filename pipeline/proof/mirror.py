"""The guest's mirror in the test host: the kept state that it was built from.

A web server in dom0 serves it under the names that the guest's own sources use, so `apt-get update`
goes its whole way: name service, route, HTTP, signatures, the keyring in the guest. Nothing leads
out, and nothing has to be fetched for the signed files.
"""

import ipaddress
import os
import re
import shlex
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import Finding, PipelineError
from pipeline.mirror.relay import Relay, relaying
from pipeline.mirror.snapshot import Snapshot
from pipeline.project import Cache
from pipeline.proof.agent import Agent
from pipeline.proof.checks import holds
from pipeline.proof.names import HANDED
from pipeline.proof.ssh import Shell
from pipeline.proof.timeouts import patient

FOLDER = "mirror"
UPDATE = "apt-get update"
UPDATE_S = 300.0
_URL = re.compile(r"\b(\w+):(?://([^/\s:\]]+)(?::(\d+))?)?/")
# a kept state may be older than its dates allow; the mirror stage has judged them
_APT = "-o Acquire::Check-Valid-Until=false -o Acquire::Retries=0 -o APT::Update::Error-Mode=any"
_KINDS = ("Translations", "Packages", "Contents-deb", "DEP-11", "CNF")


@dataclass(frozen=True)
class Supplies:
    """What the guest's mirror can serve: its kept snapshot, the cache of what was fetched.

    `is_whole`: the package lists too, not the signed files alone. `kernel` is a kernel's package
    that is to be installed in the guest, "" for none. `translations` says whether they were found.
    """

    snapshot: Snapshot
    cache: Cache
    arch: str
    is_whole: bool = False
    kernel: str = ""
    translations: bool = False

    def lay_out(self, folder: Path) -> None:
        """The files as an archive has them, `dists/` at the top; raises PipelineError."""
        for source in self.snapshot.sources:
            place = folder / "dists" / source.suite
            place.mkdir(parents=True)
            for signed in self.snapshot.signed_files(source):
                name = signed.name.replace(f"-{source.role}", "")
                (place / name).write_bytes(signed.read_bytes())
        if self.is_whole:
            self._lay_out_lists(folder)
        if self.kernel:
            self._lay_out_kernel(folder, self.kernel)

    def _lay_out_lists(self, folder: Path) -> None:
        with relaying(self.snapshot, cache=self.cache) as relay:
            for source in self.snapshot.sources:
                for component in source.components:
                    top = f"dists/{source.suite}/{component}"
                    _put(relay, source.role, folder, f"{top}/binary-{self.arch}/Packages.xz")
                    with suppress(PipelineError):  # not kept: it is for people only
                        _put(relay, source.role, folder, f"{top}/i18n/Translation-en.xz")

    def _lay_out_kernel(self, folder: Path, name: str) -> None:
        """The package and, behind a metapackage, the image and the modules that it stands for."""
        package = self.snapshot.packages.find(name)
        kept = self.cache.debs / package.sha256
        deb = self.snapshot.route.fetch(package.url, kept, size=package.size, sha256=package.sha256)
        place = folder / "pool" / package.url.partition("/pool/")[2]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(deb, place)
        for wanted in re.findall(r"\blinux-(?:image|modules|base)-\d[^\s,|]*", package.depends):
            self._lay_out_kernel(folder, wanted)


def _put(relay: Relay, role: str, folder: Path, name: str) -> None:
    """A file of the archive, under its name and under its digest."""
    file = relay.find(f"/{role}/{name}")
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, place)
    hashed = place.parent / "by-hash" / "SHA256" / file.stem
    hashed.parent.mkdir(parents=True, exist_ok=True)
    os.link(place, hashed)


def lay_out(supplies: Supplies | None, folder: Path) -> Supplies | None:
    """What could be laid out in `folder`: without a network the signed files may be all."""
    if supplies is None:
        return None
    narrow = replace(supplies, is_whole=False, kernel="")
    for attempt in (supplies, narrow):
        try:
            attempt.lay_out(folder)
        except PipelineError:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        return replace(attempt, translations=any(folder.rglob("Translation-*")))
    return None


def serve(agent: Agent, sources: str, address: str, bridge: str) -> str:
    """Make the mirrors in the guest's sources lead to the test host; why not, or ""."""
    places = {(scheme, host, port or "80") for scheme, host, port in _URL.findall(sources)}
    strange = sorted({scheme for scheme, _, _ in places} - {"http"})
    if strange or not places:
        return f"its sources say {', '.join(strange) or 'nothing'}: only http can be relayed"
    steps = []
    for _, host, port in sorted(places):
        if _is_address(host):
            steps.append(f"ip addr add {host}/32 dev lo 2>/dev/null || true")
        else:
            entry = shlex.quote(f"{address} {host}")
            steps.append(f"echo {entry} >/run/hosts-{bridge}/{shlex.quote(host)}-{port}")
    ports = " ".join(sorted({port for _, _, port in places}))
    server = f"setsid python3 {HANDED}/archive {HANDED}/{FOLDER} {ports}"
    steps.append(f"{server} >/run/archive.log 2>&1 &")
    steps.append("sleep 0.5; cat /run/archive.log >&2; test ! -s /run/archive.log")
    agent.demand(["sh", "-ec", "\n".join(steps)])
    return ""


def ask_update(shell: Shell, supplies: Supplies) -> Finding:
    """`apt-get update` in the guest against what the test host serves."""
    suites = [source.suite for source in supplies.snapshot.sources]
    kinds = _KINDS[: 0 if supplies.translations else 1] if supplies.is_whole else _KINDS
    without = [f"-o Acquire::IndexTargets::deb::{kind}::DefaultEnabled=false" for kind in kinds]
    command = " ".join(["LC_ALL=C apt-get update", _APT, *without])
    reply = shell.run(command, timeout_s=patient(UPDATE_S))
    lines = reply.output.replace("\r", "").splitlines()
    fetched = [name for name in suites if any(_says_fetched(line, name) for line in lines)]
    faults = [line for line in lines if line.startswith(("E:", "W:", "Err:"))]
    what = "package lists" if supplies.is_whole else "signed Release files"
    seen = "; ".join(faults[:3]) or f"{', '.join(fetched) or reply.output[-200:]} fetched"
    ok = reply.status == 0 and fetched == suites
    return holds(UPDATE, f"{what} of {', '.join(suites)}", seen, ok=ok)


def _says_fetched(line: str, suite: str) -> bool:
    return line.startswith(("Get:", "Hit:")) and f" {suite} InRelease" in f"{line} ".replace(
        f"{suite} Release", f"{suite} InRelease"
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
