"""Handing guests to the test host: nothing of them is rewritten.

The configuration keeps every path that it names: inside the test host those paths are links, from
a disk's to the hot-plugged device, from kernel, ramdisk and the configuration itself to a small
read-only disk that brings their bytes.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline import PACKAGE, process
from pipeline.errors import Broken, UsageError
from pipeline.guest import sshd_config
from pipeline.proof.artifact import BRIDGE, Artifact
from pipeline.proof.first_screen import OFFERED
from pipeline.proof.machine import Machine, make_overlay
from pipeline.proof.names import HANDED
from pipeline.proof.timeouts import patient
from pipeline.xen.boot import LAUNCHER, Pygrub

HOST = Path(__file__).with_name("host")
# the folder below the work folder that becomes the handover disk
BROUGHT = "handover"
BY_ID = "/dev/disk/by-id/virtio-"
SEEN_S = 30.0
MIB = 1 << 20
RESTRICTED = PACKAGE / "xen/restricted-pygrub"
_VHD_MARK = b"conectix"
TFTP = "tftp"
MOST_NETBOOT = 512 * MIB
_SCRIPTS = ("network", "questions", "archive", "authorize", OFFERED)


def plug_disks(host: Machine, artifacts: Sequence[Artifact], work: Path) -> None:
    """Attach the guests' disks through overlays, and the handover disk; wait until all are seen.

    A disk that several of them name is attached once.
    """
    image = _make_handover(artifacts, work, host.log)
    host.plug_disk(image, "handover", read_only=True)
    disks = {path: kind for artifact in artifacts for path, kind in artifact.disks}
    golden = dict.fromkeys(path for artifact in artifacts for path in artifact.golden)
    links = {path: f"{HANDED}/{name}" for path, name in _brought(artifacts).items()}
    devices = [f"{BY_ID}handover"]
    for number, (target, kind) in enumerate(disks.items()):
        overlay = work / f"disk{number}.qcow2"
        # the test host's own toolstack reads the format, so QEMU passes the bytes on
        device_mib = _device_mib(target, kind, host.log)
        make_overlay(target, overlay, base_format="raw", log=host.log, size_mib=device_mib)
        host.plug_disk(overlay, f"disk{number}")
        links[target] = f"{BY_ID}disk{number}"
        devices.append(links[target])
    for number, path in enumerate(golden):
        # nothing is written to it, in the test host as on a real one
        host.plug_disk(path, f"golden{number}", read_only=True)
        links[path] = f"{BY_ID}golden{number}"
        devices.append(links[path])
    if not host.agent.wait_for(devices, timeout_s=patient(SEEN_S)):
        raise Broken(
            f"the test host does not see its hot-plugged disks after {patient(SEEN_S):.0f} s"
        )
    steps = [f"mkdir -p {HANDED}", f"mount -o ro {BY_ID}handover {HANDED}"]
    for path, device in links.items():
        link = _named(artifacts, path)
        steps.append(f"mkdir -p {shlex.quote(str(link.parent))}")
        steps.append(f"ln -s {device} {shlex.quote(str(link))}")
    for number, artifact in enumerate(artifacts):
        steps += _let_pygrub_run(artifact, number)
    host.agent.demand(["sh", "-ec", "\n".join(steps)])


def _named(artifacts: Sequence[Artifact], path: Path) -> Path:
    """What a configuration calls a file; its own path keeps its name."""
    for artifact in artifacts:
        if path != artifact.configuration and (link := artifact.named(path)) != path:
            return link
    return path


def count_slots(artifacts: Sequence[Artifact]) -> int:
    """How many of the test host's slots for disks their handing over takes."""
    paths = [path for artifact in artifacts for path, _ in artifact.disks]
    return len({*paths, *(path for artifact in artifacts for path in artifact.golden)}) + 1


def _brought(artifacts: Sequence[Artifact]) -> dict[Path, str]:
    """The files that the handover disk brings, by the name that each has there."""
    brought = {artifact.configuration: f"{n}.cfg" for n, artifact in enumerate(artifacts)}
    boot = dict.fromkeys(path for artifact in artifacts for path in artifact.boot_files)
    return brought | {path: f"boot{number}" for number, path in enumerate(boot)}


def _let_pygrub_run(artifact: Artifact, number: int) -> list[str]:
    """What `doit install` makes for such a guest: the program, and the user."""
    boot = artifact.domain.boot
    if not isinstance(boot, Pygrub) or boot.path != LAUNCHER or boot.user.isdigit():
        return []
    account = [
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--uid",
        f"{990 - number}",
    ]
    return [
        f"install -D -m 755 {HANDED}/{RESTRICTED.name} {LAUNCHER}",
        shlex.join([*account, "--shell", "/usr/sbin/nologin", boot.user]),
    ]


def _device_mib(image: Path, kind: str, log: Path) -> int:
    """The size of the device that holds a file; 0: the file's own.

    A qcow2 or dynamic VHD file grows, so its device must be larger. A fixed VHD must end where it
    ends: its footer, without which it is no VHD, is its last sector.
    """
    with open(image, "rb") as stream:
        grows = kind == "qcow2" or (kind == "vhd" and stream.read(8) == _VHD_MARK)
    return _virtual_mib(image, log) * 5 // 4 + 64 if grows else 0


def _virtual_mib(image: Path, log: Path) -> int:
    """The size of the disk in an image, as its guest sees it."""
    told = process.run(["qemu-img", "info", "--output=json", image], log=log)
    return int(json.loads(told)["virtual-size"]) // MIB


def _make_handover(artifacts: Sequence[Artifact], work: Path, log: Path) -> Path:
    folder, image = work / BROUGHT, work / "handover.img"
    folder.mkdir(exist_ok=True)
    (folder / "known_hosts").write_text("".join(artifact.known_hosts for artifact in artifacts))
    for path, name in _brought(artifacts).items():
        shutil.copyfile(path, folder / name)
    # the script authorize reads the guest's sshd_config with our own module
    scripts = [*(HOST / name for name in _SCRIPTS), Path(sshd_config.__file__), RESTRICTED]
    for script in scripts:
        shutil.copy(script, folder / script.name)
    for file in filter(None, (artifact.netboot for artifact in artifacts)):
        bring_netboot(file, folder / TFTP)
    size_mib = sum(path.stat().st_size for path in folder.rglob("*")) // MIB + 8
    process.run(["mke2fs", "-q", "-F", "-t", "ext2", "-d", folder, image, f"{size_mib}M"], log=log)
    return image


def bring_netboot(file: Path, folder: Path) -> None:
    """The file and all beside it, links followed. Raises UsageError."""
    hint = "name the loader in a folder of its own, such as netboot/pxelinux.0"
    try:
        size = sum(path.stat().st_size for path in file.parent.rglob("*") if path.is_file())
        if not file.is_file() or size > MOST_NETBOOT:
            why = "no such file" if not file.is_file() else f"{size // MIB} MiB are beside it"
            raise UsageError(f"prove_netboot={file}: {why}", hint=hint)
        shutil.copytree(file.parent, folder)
    except (OSError, shutil.Error) as error:
        raise UsageError(f"prove_netboot={file}: {error}", hint=hint) from error


def make_bridges(
    host: Machine, artifacts: Sequence[Artifact], private: Collection[str] = ()
) -> None:
    """The bridges that the configurations name, with DHCP; fixed addresses get a neighbour.

    On a `private` one is nobody but the guests.
    """
    names = dict.fromkeys(name for artifact in artifacts for name in bridges_of(artifact))
    for name in names.keys() & set(private):
        host.agent.demand(["sh", f"{HANDED}/network", name, ""])
    netboot = {
        bridges_of(artifact)[0]: f"{TFTP}/{artifact.netboot.name}" if artifact.netboot else OFFERED
        for artifact in artifacts
        if artifact.starts_from == "the network"
    }
    for name, own in bridge_addresses(artifacts, private).items():
        net = own.rpartition(".")[0]
        words = [name, f"{own}/24", f"{net}.10", f"{net}.250"]
        words += [f"{HANDED}/{netboot[name]}"] if name in netboot else []
        host.agent.demand(["sh", f"{HANDED}/network", *words])
    guests = {
        str(at.ip) for artifact in artifacts for card in artifact.cards for at in card.addresses
    }
    for artifact in artifacts:
        for bridge, address in neighbours(artifact):
            if bridge not in private and address.partition("/")[0] not in guests:
                host.agent.demand(["sh", f"{HANDED}/network", bridge, address])


def bridge_addresses(artifacts: Sequence[Artifact], private: Collection[str]) -> dict[str, str]:
    """The test host's own address on each bridge that is not private.

    Its networks are none that the guests have among themselves.
    """
    taken = [
        address.network
        for artifact in artifacts
        for card in artifact.cards
        if card.device.bridge in private
        for address in card.addresses
    ]
    free = []
    for own in map(bridge_address, range(256)):
        network = ipaddress.ip_network(f"{own}/24", strict=False)
        if not any(other.version == 4 and network.overlaps(other) for other in taken):
            free.append(own)
    names = dict.fromkeys(name for artifact in artifacts for name in bridges_of(artifact))
    return dict(zip((name for name in names if name not in private), free, strict=False))


def bridge_address(number: int) -> str:
    """The test host's own address on its bridge number `number`, from 0."""
    return f"10.77.{number}.1"


def nearest_address(artifact: Artifact) -> tuple[str, str]:
    """The first bridge, and the test host's address there that the guest reaches on any account."""
    bridge = bridges_of(artifact)[0]
    found = [address for name, address in neighbours(artifact) if name == bridge]
    is_fixed = not artifact.cards[0].dhcp and found
    return bridge, found[-1].partition("/")[0] if is_fixed else bridge_address(0)


def bridges_of(artifact: Artifact) -> list[str]:
    """Each bridge once, in the order of the cards."""
    return list(dict.fromkeys(card.bridge or BRIDGE for card in artifact.domain.cards))


def neighbours(artifact: Artifact) -> list[tuple[str, str]]:
    """The address that the test host takes in the network of each fixed address of the guest.

    It is the gateway's, so that the guest's default route leads somewhere, else the first free;
    the name servers' as well.
    """
    found: list[tuple[str, str]] = []
    for card in artifact.cards:
        networks = {address.network for address in card.addresses}
        for server in map(ipaddress.ip_address, card.nameservers):
            length = next(
                (net.prefixlen for net in networks if server in net), server.max_prefixlen
            )
            found.append((card.device.bridge or BRIDGE, f"{server}/{length}"))
        for address in card.addresses:
            gateway = card.gateway if address.version == 4 else card.gateway6
            network = address.network
            if gateway and ipaddress.ip_address(str(gateway)) in network:
                own = str(gateway)
            else:
                own = str(next(host for host in network.hosts() if host != address.ip))
            found.append((card.device.bridge or BRIDGE, f"{own}/{network.prefixlen}"))
    return list(dict.fromkeys(found))


def hand_keys(artifacts: Sequence[Artifact], room: Path, log: Path) -> None:
    """What ssh needs, where no disk brings it: the guests' host keys, and a key that opens none."""
    handed = room / Path(HANDED).name
    handed.mkdir()
    (handed / "known_hosts").write_text("".join(each.known_hosts for each in artifacts))
    stranger = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stranger"]
    process.run([*stranger, "-f", room / "stranger"], log=log)
