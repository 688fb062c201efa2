"""DRBD in a guest: its resources' files, their secrets, and what the nodes do when they first meet.

The nodes' common secret is the one thing that keeps others from writing to their disks. It is made
once for both, kept in output/identity/PAIR/ (0600), and lies in the guests' own disks alone.
"""

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import digest_file, fingerprint, open_plain, write_durably
from pipeline.guest.kept_file import damaged, read_kept
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.replication import ReplicatedKeys
from pipeline.storage.ext import IdentityFile

# SHARED_SECRET_MAX of linux/drbd.h with its final zero; quoted in drbd.conf, so without quotes
_SECRET = re.compile(r"[!#-\[\]-~]{8,63}")
_MOST_BYTES = 1 << 12
# how long a node waits for the other, where something waits; drbd.conf's own is without end
_PATIENCE_S = 5
_RESOURCE = """\
# Made by the pipeline. Split brain: {policy}.
# What stays disconnected is mended by hand, on the node whose changes are to be lost:
#   drbdadm disconnect {name}; drbdadm secondary {name}; drbdadm connect --discard-my-data {name}
# and on the other, where it says StandAlone: drbdadm connect {name}
resource {name} {{
    device /dev/drbd{minor};
    disk {disk};
    meta-disk internal;
    net {{
        protocol {protocol};
        cram-hmac-alg sha256;
        shared-secret "{secret}";
        after-sb-0pri {after_0pri};
        after-sb-1pri {after_1pri};
        after-sb-2pri {after_2pri};
    }}
    startup {{
        wfc-timeout {patience};
        degr-wfc-timeout {patience};
        outdated-wfc-timeout {patience};
    }}
    on {host} {{
        address {address};
    }}
    on {peer} {{
        address {peer_address};
    }}
}}
"""
_SETTINGS = "/etc/default/drbd"
_NO_WAITING = """\
# Made by the pipeline: read by DRBD's service.
# It would wait for the other node, and write dots onto the console meanwhile: nobody needs that.
# On a busy machine drbdadm leaves a disk alone that takes longer than five seconds, and the rest of
# its resource with it: what is then not connected is asked for again.
drbdadm() {
    case $1 in
        wait-con-int) ;;
        adjust-with-progress)
            for attempt in 1 2 3; do
                command drbdadm "$@" && result=0 || result=$?
                grep -q ' cs:StandAlone ' /proc/drbd || [ $result -gt 1 ] || break
            done
            return $result
            ;;
        *) command drbdadm "$@" ;;
    esac
}
"""
_FIRST_MEETING = """
# Called when the resources are up.
# New disks are zeros on both nodes. When the nodes first meet, this one says that they are the
# same; nothing is copied. DRBD itself refuses that for a disk that has ever been in use.
hook_start() {
    for minor in %s; do
        while state=$(grep "^ *$minor: cs:.* ds:Inconsistent/" /proc/drbd); do
            case $state in
                *" cs:Connected "*" ds:Inconsistent/Inconsistent "*)
                    drbdsetup new-current-uuid "$minor" --clear-bitmap
                    ;;
            esac
            sleep 2
        done < /dev/null > /dev/null 2>&1 &
    done
}
"""


def read_secrets(spec: Spec, project: Project) -> dict[str, str]:
    """Each resource's secret by its name; on the way those of pairs are made that are missing.

    Raises UsageError for a file that holds none, VerificationError for a kept one that is damaged.
    """
    return {node.name: _read_secret(node, project) for node in spec.replicated}


def digest_given(spec: Spec) -> str:
    """What changes with the secrets that are files of the user's; "" where there are none."""
    files = [Path(node.secret_file) for node in spec.replicated if node.secret_file]
    digests = [digest_file(path, follow=True) for path in files if path.is_file()]
    # with the guest's own name mixed in, so that equal secrets do not show
    return fingerprint([spec.name, *digests])[:16] if files else ""


def _read_secret(node: ReplicatedKeys, project: Project) -> str:
    if node.secret_file:
        return _read_given(Path(node.secret_file))
    folder = project.identity(node.pair)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = folder / f"{node.name}.drbd-secret"
    with locked(folder / ".drbd-secrets.lock"):  # both nodes may be built at this moment
        if not os.path.lexists(path):
            write_durably(path, f"{secrets.token_hex(24)}\n".encode(), mode=0o600)
        text = read_kept(path).decode("ascii", "replace").rstrip("\n")
    if not _SECRET.fullmatch(text):
        raise damaged(path)
    return text


def _read_given(path: Path) -> str:
    try:
        with open(open_plain(path), "rb") as stream:
            text = stream.read(_MOST_BYTES).decode("ascii", "replace").rstrip("\r\n")
    except OSError as error:
        raise UsageError(
            f"secret_file {path}: {error.strerror}", hint="correct secret_file of replicated"
        ) from error
    if not _SECRET.fullmatch(text):
        raise UsageError(
            f"secret_file {path}: not one line of 8 to 63 letters, digits and signs",
            hint="without spaces, quotes and backslashes: openssl rand -hex 24",
        )
    return text


def replication_files(spec: Spec, secret_of: Mapping[str, str]) -> Iterator[IdentityFile]:
    """The guest's files for DRBD; nothing for a guest without replicated disks."""
    disks = {part.name: part.node for part in spec.parts if part.is_replicated}
    for node in spec.replicated:
        text = render_resource(spec, node, disks[node.name], secret_of[node.name])
        yield IdentityFile(f"/etc/drbd.d/{node.name}.res", text.encode(), 0o600)
    first = " ".join(str(node.minor) for node in spec.replicated if node.is_first)
    settings = _NO_WAITING + (_FIRST_MEETING % first if first else "")
    if spec.replicated:
        yield IdentityFile(_SETTINGS, settings.encode())


def render_resource(spec: Spec, node: ReplicatedKeys, disk: str, secret: str) -> str:
    """A resource's file in /etc/drbd.d, as drbd.conf(5) of 8.4 has it."""
    policies = ("no primary", node.after_0pri), ("one", node.after_1pri), ("two", node.after_2pri)
    return _RESOURCE.format(
        name=node.name,
        policy=", ".join(f"{case}: {policy}" for case, policy in policies),
        minor=node.minor,
        disk=disk,
        protocol=node.protocol,
        secret=secret,
        after_0pri=node.after_0pri,
        after_1pri=node.after_1pri,
        after_2pri=node.after_2pri,
        patience=_PATIENCE_S,
        host=spec.short_hostname,
        address=_show_address(node.address, node.port),
        peer=node.peer.partition(".")[0],
        peer_address=_show_address(node.peer_address, node.port),
    )


def _show_address(text: str, port: int) -> str:
    address = ip_address(text)
    return f"ipv6 [{address}]:{port}" if address.version == 6 else f"ipv4 {address}:{port}"
