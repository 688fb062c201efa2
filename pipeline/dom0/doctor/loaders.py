"""pygrub on this host: whose runs as root, and what those that do not would miss."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.dom0 import restriction
from pipeline.dom0.configuration import LIMIT
from pipeline.dom0.doctor.configured import Configured
from pipeline.dom0.doctor.facts import HostFacts
from pipeline.dom0.inventory import Installed
from pipeline.dom0.layout import Layout
from pipeline.errors import Finding, PipelineError, WrongValueError
from pipeline.files import read_bytes
from pipeline.xen.boot import LAUNCHER, Pygrub
from pipeline.xen.cfg_syntax import Value
from pipeline.xen.compatibility import before
from pipeline.xen.values import parse_version

_NAMES = ("pygrub", Path(LAUNCHER).name)
QEMU_USER = "xen-qemuuser-range-base"  # and the domain's number: libxl_bootloader.c
_OFF = (0, "0", "")


def find_loader_trouble(
    layout: Layout, facts: HostFacts, installed: Mapping[str, Installed]
) -> list[Finding]:
    """Every configuration below /etc/xen that has pygrub read its disk, ours or not."""
    guests = list(filter(_has_pygrub, facts.configured))
    troubles: list[Finding] = []
    for configured in guests:
        is_ours = configured.path == layout.config(configured.name) and configured.name in installed
        troubles += _judge(configured, layout, facts, is_ours=is_ours)
    if guests and not can_restrict(layout.root):
        troubles.append(
            Finding(
                "error",
                "pygrub",
                "this host's pygrub has no --runas: it can only run as root (XSA-508)",
                "apt-get install xen-utils-4.17 of today; or type = pvh, which needs no pygrub",
                code="pygrub-old",
            )
        )
    return troubles


def can_restrict(root: Path) -> bool:
    """Whether the pygrub of this host gives up root's rights; true where there is none to ask."""
    texts = []
    for path in (root / "usr/lib").glob("xen-*/bin/pygrub"):
        with suppress(OSError, PipelineError):
            texts.append(read_bytes(path, limit=LIMIT, follow=True))
    return not texts or any(b"runas=" in text for text in texts)


def _has_pygrub(guest: Configured) -> bool:
    is_pc = "hvm" in (guest.values.get("type"), guest.values.get("builder"))
    return Path(str(guest.values.get("bootloader", ""))).name in _NAMES and not is_pc


def _user_by_argument(values: Mapping[str, Value]) -> str:
    """The user that pygrub's own arguments name, "" for none."""
    words = values.get("bootloader_args", [])
    listed = words if isinstance(words, list) else [str(words)]
    return Pygrub.of_words(str(values["bootloader"]), listed).user


def _user_by_key(values: Mapping[str, Value]) -> str:
    """The user that xl's keys of 4.18 and later name, where none is given that of QEMU."""
    if values.get("bootloader_restrict", 1) in _OFF:
        return ""
    named = str(values.get("bootloader_user") or "")
    return named or (QEMU_USER if "bootloader_restrict" in values else "")


def _judge(
    configured: Configured, layout: Layout, facts: HostFacts, *, is_ours: bool
) -> Iterator[Finding]:
    way_out = f"doit modernize cfg={configured.path} makes it a PVH guest"
    if is_ours:
        way_out = f"doit refresh name={configured.name}; or build it with type = pvh, boot = grub"
    try:
        user, by_key = _user_by_argument(configured.values), _user_by_key(configured.values)
    except WrongValueError as error:
        yield Finding(
            "error", configured.name, f"{configured.path}: {error}", way_out, code="pygrub"
        )
        return
    trouble = ""
    if not (user or by_key):
        trouble = restriction.ADVISORY
    elif not user and _ignores_keys(facts):
        trouble = f"Xen {facts.xen_version} ignores bootloader_user=, {restriction.ADVISORY}"
    elif by_key != QEMU_USER:
        path = str(configured.values["bootloader"])
        trouble = restriction.find_missing(Pygrub(path, user=user or by_key), layout)
    if trouble:
        yield Finding(
            "error", configured.name, f"{configured.path}: {trouble}", way_out, code="pygrub"
        )


def _ignores_keys(facts: HostFacts) -> bool:
    try:
        return before("bootloader_user=", parse_version(facts.xen_version))
    except WrongValueError:
        return False  # not a dom0 now
