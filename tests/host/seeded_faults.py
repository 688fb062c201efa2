"""Faults to seed into a finished guest, each with the names of the checks that must find it."""

import os
from collections.abc import Callable

from pipeline.kernel.cpio import Archive, compress
from tests.host.witness import FOREIGN, NAME, Witness

GETTY = "/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service"
NETWORK = "/etc/systemd/network/10-card0.network"
CFG = f"{NAME}.cfg"
MODULES = "/lib/modules/ABI"
PRIVATE = "-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\n"


def replaced(path: str, old: str, new: str, **attributes: int) -> Callable[[Witness], None]:
    return lambda guest: guest.replace(path, old, new, **attributes)


def put(path: str, text: str, **attributes: int) -> Callable[[Witness], None]:
    return lambda guest: guest.put(path, text, **attributes)


def edited(name: str, old: str, new: str) -> Callable[[Witness], None]:
    return lambda guest: guest.edit(name, old, new)


def debugged(*lines: str) -> Callable[[Witness], None]:
    def seed(guest: Witness) -> None:
        abi = next(
            line.split('"')[3]
            for line in (guest.folder / "kernel.json").read_text().splitlines()
            if '"abi"' in line
        )
        guest.debugfs(*(line.replace("ABI", abi) for line in lines))

    return seed


def without_blkfront(guest: Witness) -> None:
    archive = Archive()
    archive.add_file("init", b"#!/bin/sh\n", mode=0o755)
    (guest.folder / "initrd.img").write_bytes(compress(archive.pack()))


def same_machine_id(guest: Witness) -> None:
    other = guest.project.identity("elder")
    other.mkdir(parents=True)
    (other / "machine-id").write_text(guest.read("/etc/machine-id"))


def with_root_hash(guest: Witness) -> None:
    guest.replace("/etc/shadow", "root:*:", "root:$6$salt$hash:", mode=0o640, group=42)


def longer_disk(guest: Witness) -> None:
    os.truncate(guest.disk, guest.disk.stat().st_size + (1 << 20))


def unsigned_swap(guest: Witness) -> None:
    with open(guest.folder / "swap.img", "r+b") as stream:
        stream.write(bytes(4096))


FAULTS: dict[str, tuple[Callable[[Witness], None], set[str]]] = {
    "root has a password": (with_root_hash, {"A2 root password"}),
    "root has an empty password": (
        replaced("/etc/shadow", "root:*:", "root::", mode=0o640, group=42),
        {"A2 root password"},
    ),
    "somebody has a password": (
        replaced("/etc/shadow", "daemon:*:", "daemon:$6$salt$hash:", mode=0o640, group=42),
        {"A2 other accounts"},
    ),
    "a second root": (replaced("/etc/passwd", "daemon:x:1:", "daemon:x:0:"), {"A2 other accounts"}),
    "a foreign key": (
        put("/root/.ssh/authorized_keys", f"{FOREIGN}\n", mode=0o600),
        {"A3 authorized keys"},
    ),
    "a second file of keys": (
        put("/root/.ssh/authorized_keys2", f"{FOREIGN}\n", mode=0o600),
        {"A3 foreign keys"},
    ),
    "keys that others may write": (
        debugged("sif /root/.ssh/authorized_keys mode 0100666"),
        {"A3 modes of keys"},
    ),
    "sshd takes passwords": (
        put("/etc/ssh/sshd_config.d/05-x.conf", "PasswordAuthentication yes\n"),
        {"A3 sshd takes keys only"},
    ),
    "sshd takes passwords of one address": (
        put("/etc/ssh/sshd_config.d/99-x.conf", "Match Address 10.0.0.0/8\nPermitRootLogin yes\n"),
        {"A3 sshd takes keys only"},
    ),
    "nothing starts sshd": (
        debugged("rm /etc/systemd/system/multi-user.target.wants/ssh.service"),
        {"A3 sshd starts"},
    ),
    "other host keys than promised": (
        edited("known_hosts", "ssh-ed25519 AAAA", "ssh-ed25519 AAAB"),
        {"A3 host keys"},
    ),
    "a host key that others may read": (
        debugged("sif /etc/ssh/ssh_host_ecdsa_key mode 0100644"),
        {"C13 host keys' modes"},
    ),
    "wrong hosts": (replaced("/etc/hosts", f"127.0.0.1 {NAME}", "127.0.1.1 elder"), {"A4 hosts"}),
    "wrong host name": (put("/etc/hostname", "elder\n"), {"A4 hostname"}),
    "the machine id of another guest": (same_machine_id, {"C6 machine-id"}),
    "no machine id": (put("/etc/machine-id", "", mode=0o444), {"C6 machine-id"}),
    "debconf asks less": (
        replaced("/var/cache/debconf/config.dat", "Value: medium", "Value: high"),
        {"A5 debconf priority"},
    ),
    "no getty on hvc0": (debugged(f"rm {GETTY}"), {"A6 hvc0 getty", "C2 no-hvc0-getty"}),
    "wrong MAC in the configuration": (
        edited(CFG, "mac=00:16:3e:", "mac=00:16:3f:"),
        {"A7 vif", f"A9 {CFG}"},
    ),
    "wrong bridge for xm": (
        edited(f"{NAME}.xm", "br-xen", "xenbr0"),
        {"A13 bridge", f"C9 {NAME}.xm"},
    ),
    "only one name of the card": (
        replaced(NETWORK, "eth0 enX0", "eth0"),
        {"A7 card 0 names", "C2 card-name"},
    ),
    "a fixed address instead of DHCP": (
        replaced(NETWORK, "DHCP=yes", "Address=192.168.1.9/24"),
        {"A7 card 0 address"},
    ),
    "the builder's resolv.conf": (
        lambda guest: guest.put("/etc/resolv.conf", "nameserver 10.0.0.1\n"),
        {"A7 resolv.conf"},
    ),
    "root is no disk": (
        edited(CFG, "/dev/xvda1 ro", "/dev/xvda3 ro"),
        {f"A9 {CFG}", "C2 root-not-a-disk"},
    ),
    "an unknown key": (
        edited(CFG, "vcpus = 1", 'vcpus = 1\ndhcp = "yes"'),
        {f"A9 {CFG}", f"A9 {CFG}: keys"},
    ),
    "a configuration that nobody can read": (
        edited(CFG, "vcpus = 1", "vcpus = ["),
        {f"A9 {CFG}", f"A9 {CFG}: keys"},
    ),
    "modules of another kernel": (
        debugged("mkdir /lib/modules/5.10.0-1-amd64"),
        {"A10 modules", "A10 modules.dep", "A10 module drbd"}
        | {"A10 module xen-netfront", "A10 module netfilter"},
    ),
    "no xen-netfront": (
        debugged(f"rm {MODULES}/kernel/drivers/net/xen-netfront.ko"),
        {"A10 modules.dep", "A10 module xen-netfront"},
    ),
    "no drbd": (
        debugged(f"rm {MODULES}/kernel/drivers/block/drbd/drbd.ko"),
        {"A10 modules.dep", "A10 module drbd"},
    ),
    "udev is masked": (
        debugged("symlink /etc/systemd/system/systemd-udevd.service /dev/null"),
        {"A11 udev"},
    ),
    "fstab names another disk": (
        replaced("/etc/fstab", "/dev/xvda1", "/dev/xvda5"),
        {"A11 fstab root", "C2 root-differs-from-fstab"},
    ),
    "another time zone": (put("/etc/timezone", "Europe/Paris\n"), {"A12 timezone"}),
    "sources name stable": (
        replaced("/etc/apt/sources.list", "bookworm-updates", "stable-updates"),
        {"A12 apt sources"},
    ),
    "the builder's proxy": (
        put("/etc/apt/apt.conf.d/01proxy", 'Acquire::http::Proxy "http://10.0.0.1:3142";\n'),
        {"A12 builder's settings"},
    ),
    "policy-rc.d": (put("/usr/sbin/policy-rc.d", "exit 101\n", mode=0o755), {"B4 policy-rc.d"}),
    "a package list": (put("/var/lib/apt/lists/x_Packages", "x"), {"B4 apt's lists, caches"}),
    "an initrd without xen-blkfront": (without_blkfront, {"C2 no-blkfront"}),
    "no initrd": (
        lambda guest: (guest.folder / "initrd.img").unlink(),
        {"B5 files it names", "A10 kernel", "C2 boot files"},
    ),
    "another spec": (edited("spec.json", '"size": "1G"', '"size": "2G"'), {"B5 spec"}),
    "a damaged file system": (debugged("sif /etc/hosts links_count 7"), {"B3 e2fsck"}),
    "a longer disk": (longer_disk, {"B3 disk size"}),
    "no signature on swap": (unsigned_swap, {"A25 swap"}),
    "a package more in the manifest": (
        edited("manifest", "drbd-utils ", "drbd-tools "),
        {"C12 manifest"},
    ),
    "a hash in the artifact": (
        edited("stages.json", "{", '{"x": "$6$saltsalt$0123456789abcdef0123",'),
        {"C13 artifact's secrets"},
    ),
    "a private key in the guest": (
        put("/etc/ssh/x.key", PRIVATE, mode=0o600),
        {"C13 private keys inside"},
    ),
}
