"""Identity: what makes one guest itself, as files to write into a golden image.

Host keys and machine-id are made once, kept in output/identity/<guest>/ (mode 0700) and used again
by every later build, so that a rebuilt guest is the same guest to those who know it.
"""

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.files import write_durably
from pipeline.guest.adopted_network import CONNECTIONS, adopted_network_files
from pipeline.guest.adopted_tree import Adopted
from pipeline.guest.kept_file import damaged, read_kept
from pipeline.guest.network import network_files
from pipeline.guest.passwords import replace_root_password
from pipeline.guest.replication_files import replication_files
from pipeline.spec import Spec, read_authorized_keys
from pipeline.spec.devices import Part
from pipeline.storage.ext import IdentityFile
from pipeline.storage.images import identity_uuid

MACHINE_ID = "machine-id"
_NO_SECRETS: Mapping[str, str] = {}
_MACHINE_ID = re.compile(rb"[0-9a-f]{32}")


@dataclass(frozen=True)
class KeptIdentity:
    """What is kept between builds: files below /etc/ssh, and the machine id (machine-id(5))."""

    machine_id: str
    host_keys: dict[str, bytes] = field(repr=False)

    @property
    def public_keys(self) -> list[str]:
        """`type base64` of each host key, for known_hosts."""
        return [
            " ".join(content.decode().split()[:2])
            for name, content in sorted(self.host_keys.items())
            if name.endswith(".pub")
        ]


def keep_identity(folder: Path, spec: Spec) -> KeptIdentity:
    """Read the guest's kept identity, making on the way what is missing.

    Raises VerificationError for what is there and damaged: a new key would be another guest.
    """
    from pipeline.guest.host_keys import keep_host_keys  # cryptography: 80 ms

    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    machine_id = folder / MACHINE_ID
    if not os.path.lexists(machine_id):
        write_durably(machine_id, f"{uuid.uuid4().hex}\n".encode(), mode=0o600)
    kept_id = read_kept(machine_id).strip()
    if not _MACHINE_ID.fullmatch(kept_id):
        raise damaged(machine_id)
    is_old = not spec.suite_facts.understands_ed25519
    return KeptIdentity(kept_id.decode(), keep_host_keys(folder, old=is_old))


def identity_files(
    spec: Spec,
    kept: KeptIdentity,
    *,
    shadow: str,
    root_hash: str,
    adopted: Adopted | None = None,
    secret_of: Mapping[str, str] = _NO_SECRETS,
) -> Iterator[IdentityFile]:
    """Every file that is this guest's own. `shadow` is the golden image's /etc/shadow.

    `root_hash` is a crypt(5) string, or "" for a locked password; `adopted` says whose tools are
    told, where they are not the suite's. `secret_of` has the secrets of the replicated disks.
    """
    yield IdentityFile("/etc/hostname", f"{spec.short_hostname}\n".encode())
    yield IdentityFile("/etc/hosts", render_hosts(spec).encode())
    further = "".join(f"{line}\n" for line in adopted.fstab) if adopted else ""
    yield IdentityFile("/etc/fstab", (render_fstab(spec) + further).encode())
    yield IdentityFile("/etc/machine-id", f"{kept.machine_id}\n".encode(), 0o444)
    changed = replace_root_password(shadow, root_hash)
    yield IdentityFile("/etc/shadow", changed.encode(), 0o640)
    for name, content in sorted(kept.host_keys.items()):
        mode = 0o644 if name.endswith(".pub") else 0o600
        yield IdentityFile(f"/etc/ssh/{name}", content, mode)
    keys = authorized_lines(spec)
    if keys:
        content = "".join(f"{line}\n" for line in keys).encode()
        yield IdentityFile("/root/.ssh/authorized_keys", content, 0o600)
    told = adopted_network_files(spec, adopted) if adopted else network_files(spec)
    yield from replication_files(spec, secret_of)
    for path, text in told.items():
        is_secret = path.startswith(("/etc/netplan/", CONNECTIONS))  # their tools ask for it
        yield IdentityFile(path, text.encode(), 0o600 if is_secret else 0o644)


def template_files(spec: Spec, *, shadow: str) -> Iterator[IdentityFile]:
    """What a template has of them: where its disks are. cloud-init writes what is one guest's."""
    yield IdentityFile("/etc/fstab", render_fstab(spec).encode())
    yield IdentityFile("/etc/shadow", replace_root_password(shadow, "").encode(), 0o640)


def authorized_lines(spec: Spec) -> tuple[str, ...]:
    """The key lines that may enter as root; raises SpecError for what is no sound public key."""
    return read_authorized_keys(spec.authorized_keys, spec.suite, source=spec.name)


def render_hosts(spec: Spec) -> str:
    """/etc/hosts: `127.0.0.1 fqdn host localhost`, so that `hostname -f` is the fqdn."""
    names = dict.fromkeys([spec.fqdn, spec.short_hostname, "localhost"])
    lines = [
        f"127.0.0.1 {' '.join(names)}",
        "::1 localhost ip6-localhost ip6-loopback",
        "ff02::1 ip6-allnodes",
        "ff02::2 ip6-allrouters",
        *(f"{node.peer_address} {node.peer}" for node in spec.replicated),
        *spec.hosts,
    ]
    return "\n".join(lines) + "\n"


def name_device(spec: Spec, part: Part) -> str:
    """What fstab calls it: the guest's device, on a whole disk the file system's UUID."""
    return f"UUID={identity_uuid(spec, part)}" if spec.is_whole else part.node


def render_fstab(spec: Spec) -> str:
    """/etc/fstab: file systems, swap, and where udev does not mount them pts and shm."""
    lines = []
    for part in spec.parts:
        device = name_device(spec, part)
        if part.is_swap:
            lines.append(f"{device} none swap {part.options} 0 0")
            continue
        if not part.has_files:
            continue
        # xfs and btrfs check themselves when they are mounted (fsck.xfs(8), fsck.btrfs(8))
        order = 0 if part.fs in ("xfs", "btrfs") else 1 if part.is_root else 2
        lines.append(f"{device} {part.mountpoint} {part.fs} {part.options} 0 {order}")
    lines.append("proc /proc proc defaults 0 0")
    if spec.init == "sysvinit":
        lines.append("devpts /dev/pts devpts gid=5,mode=620 0 0")
        lines.append("tmpfs /dev/shm tmpfs nosuid,nodev 0 0")
    return "\n".join(lines) + "\n"


def render_known_hosts(spec: Spec, kept: KeptIdentity) -> str:
    """known_hosts(5) lines for the guest's names and static addresses."""
    addresses = [str(address.ip) for card in spec.cards for address in card.addresses]
    names = ",".join(dict.fromkeys([spec.fqdn, spec.short_hostname, *addresses]))
    return "".join(f"{names} {key}\n" for key in kept.public_keys)
