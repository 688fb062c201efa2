"""Elements that do what none should: nothing outside the build changes, and each has its end.

In a tree of a few programs, in the very cage that guests are built in. What ends well shares a
build with others; what ends the build has one of its own.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import require
from tests.elements.rootfs_build import Build, Host, build_rootfs
from tests.elements.small_tree import small_tree, take_picture

__all__ = ["small_tree"]
pytestmark = pytest.mark.integration

END_S = 90
# scripts see: $WITNESS, a folder of the host; $PORT, where something of the host listens
INSIDE = {
    "daemon": "sleep 1000 & disown",
    "daemon-silent": "sleep 1000 < /dev/null > /dev/null 2>&1 & disown",
    "daemon-apart": "bash -c 'exec -a sshd sleep 1000' & disown",
    "daemon-deaf": "(trap '' TERM HUP INT; sleep 1000) & disown",
    "crowd": "for n in {1..150}; do sleep 1000 & done",
    "escapes": r"printf '\e]0;owned\a\e[2J\e[31mnote: all is well\e[0m\n\x9b31m\n' >&2",
    "forged": "echo 'dib-run-parts Running /tmp/in_target.d/install.d/99-x'; echo 'error: none'",
    "binary": "head -c 100000 /dev/urandom",
    "long-line": "head -c 3000000 /dev/zero | tr '\\0' x; echo",
    "fills-tmp": 'head -c 60000000 /dev/zero > /tmp/big; mkdir /tmp/a; ln -s "$WITNESS" /tmp/a/b',
    "looks-for-host": 'test ! -e "$WITNESS"; test ! -e "/proc/1/root$WITNESS"; test ! -e /work',
    "climbs": 'cd /; for n in {1..40}; do cd ..; done; test ! -e "./$WITNESS"',
    "proc-root": 'for p in /proc/[0-9]*; do test ! -e "$p/root$WITNESS"; done',
    "hostname": "! echo owned > /proc/sys/kernel/hostname",
    "sysctl": "! echo 1 > /proc/sys/vm/drop_caches; ! echo 99 > /proc/sys/vm/swappiness",
    "sysrq": "! echo h > /proc/sysrq-trigger",
    "kmsg": "! echo owned > /dev/kmsg",
    "disks": "for d in /dev/vda /dev/sda /dev/mem /dev/loop-control; do ! : < $d; done",
    "mounts": "! mount -t tmpfs none /mnt; ! mount --bind / /mnt; ! umount /proc",
    "nodes": "! mknod /tmp/node b 254 0; ! mknod /dev/node c 1 1",
    "network": "! : < /dev/tcp/127.0.0.1/$PORT",
    "escape-by-chroot": 'mkdir -p /tmp/c; chroot /tmp/c true || true; test ! -e "$WITNESS"',
    "setuid": "cp /bin/bash /usr/bin/owned; chown 0:0 /usr/bin/owned; chmod 4755 /usr/bin/owned",
    "fifos": "mkfifo /var/tmp/fifo /etc/fifo /usr/share/fifo; ln -s fifo /usr/share/link",
    "names": "touch $'/usr/share/a\\nb' $'/usr/share/\\e[2J' /usr/share/$(printf 'n%.0s' {1..255})",
    "loops": "ln -s loop /usr/share/loop; ln -s . /usr/share/here; ln -s / /usr/share/slash",
    "deep": "cd /usr/share; p=$(printf 'd/%.0s' {1..100}); mkdir c0;"
    ' for n in {1..15}; do mkdir -p "c$n/$p"; mv "c$((n - 1))" "c$n/${p}x"; done',
    "many": "mkdir /usr/share/many; cd /usr/share/many; for n in {1..5000}; do : > $n; done",
    "hard-links": 'ln /etc/shadow /usr/share/shadow; ! ln "$WITNESS/file" /usr/share/file',
    "read-only-hooks": "! rm -rf /tmp/in_target.d/install.d; ! touch /tmp/in_target.d/new",
    "environment": "cat /proc/*/environ | tr '\\0' '\\n' | grep -q SECRET && exit 1; true",
    "limits": "ulimit -c unlimited || true; ulimit -n 1024; exec 9> /tmp/x; true",
    "holds-cwd": "cd /usr/share; (while :; do sleep 100; done) & disown",
    "var-tmp": 'rm -rf /var/tmp; ln -s "$WITNESS" /var/tmp',
    "var-log": 'rm -rf /var/log; ln -s "$WITNESS" /var/log',
    "root": 'rm -rf /root; ln -s "$WITNESS" /root',
    "etc-ssh": 'rm -rf /etc/ssh; ln -s "$WITNESS" /etc/ssh',
    "usr-local": 'rm -rf /usr/local; ln -s "$WITNESS" /usr/local',
    "apt-lists": 'rm -rf /var/lib/apt/lists; ln -s "$WITNESS" /var/lib/apt/lists',
    "backups": 'rm -rf /var/backups; ln -s "$WITNESS" /var/backups',
}
# beside the tree, with the host's programs: what DIB calls outside
BESIDE = {
    "writes-etc": "! touch /etc/owned; ! touch /usr/bin/owned",
    "writes-elements": '! touch "${ELEMENTS_PATH%%:*}/owned"',
    "writes-program": '! touch "$_LIB/owned"',
    "looks-for-host-beside": 'test ! -e "$WITNESS"; test ! -e "/proc/1/root$WITNESS"',
    "reads-shadow": "test ! -s /etc/shadow; test ! -e /root/.ssh; test ! -e /etc/ssh",
    "network-beside": "! (: < /dev/tcp/127.0.0.1/$PORT)",
    "hostname-beside": "hostname owned || true",
    "sysctl-beside": "! echo owned > /proc/sys/kernel/core_pattern; ! echo h > /proc/sysrq-trigger",
    "disks-beside": "for d in /dev/vda /dev/sda /dev/mem; do ! (: < $d); done",
    "mounts-beside": 'mkdir -p "$TMPDIR/m"; mount -t tmpfs none "$TMPDIR/m" && umount "$TMPDIR/m"',
    "nodes-beside": '! mknod "$TMPDIR/node" b 254 0',
    "remounts": "! mount -o remount,rw /usr; ! mount -o remount,rw /",
    "daemon-beside": "(setsid sleep 1000 < /dev/null > /dev/null 2>&1 &)",
}
# each ends its build, with a word
ENDS = {
    "kills-all": ("install.d", "kill -9 -1"),
    "kills-all-beside": ("extra-data.d", "kill -9 -1"),
    "fails": ("install.d", "echo 'mine: it does not work' >&2; exit 7"),
    "removes-all": ("install.d", "rm -rf --no-preserve-root /usr /etc /var /bin"),
    "removes-all-beside": ("post-root.d", "rm -rf --no-preserve-root / 2> /dev/null"),
    "tmp-is-a-link": ("post-install.d", 'rm -rf /tmp; ln -s "$WITNESS" /tmp'),
    "etc-is-a-link": ("install.d", 'rm -rf /etc; ln -s "$WITNESS" /etc'),
    "kills-its-parent": ("install.d", "kill -9 1 || true; kill -9 $PPID"),
    "no-find": ("install.d", "printf '#!/bin/sh\\nexit 1\\n' > /usr/bin/find"),
    "no-shell": ("install.d", "rm -f /usr/bin/sh /usr/bin/bash"),
    "loud-rm": (
        "install.d",
        r"printf '#!/bin/sh\nprintf \047\\033[2J\047; exit 3\n' > /usr/bin/rm",
    ),
    "base-of-links": ("root.d", 'rm -rf "$TARGET_ROOT/etc"; ln -s "$WITNESS" "$TARGET_ROOT/etc"'),
}
QUICK = ("kills-all", "fails", "etc-is-a-link", "no-find")
GROUPS = 3


@dataclass
class Outside:
    """What must not change: a folder of the host, its name, its settings; what listens on it."""

    witness: Path
    port: int
    host: Host

    def picture(self) -> dict[str, str]:
        settings = ("kernel/hostname", "kernel/core_pattern")
        found = {name: Path("/proc/sys", name).read_text() for name in settings}
        return {**found, **take_picture(self.witness)}


@pytest.fixture
def outside(small_tree: Path, tmp_path: Path) -> Iterator[Outside]:
    require(os.geteuid() == 0, "needs root")
    base = tmp_path / "base.tar"
    subprocess.run(["tar", "-C", small_tree, "-cf", base, "."], check=True)
    witness = tmp_path / "witness"
    (witness / "ssh").mkdir(parents=True)
    for name in ("file", "all.log", "ssh_host_rsa_key", ".bash_history", "ssh/known"):
        (witness / name).write_text("the host's\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        yield Outside(witness, port, Host("bookworm", "debian", base, empty, {"systemd": base}))


def build(outside: Outside, folder: Path, hooks: dict[str, dict[str, str]]) -> tuple[Build, float]:
    """Build with one element of these scripts, phase -> name -> script."""
    element = folder / "elements" / "mine"
    for phase, scripts in hooks.items():
        (element / phase).mkdir(parents=True)
        for number, (name, script) in enumerate(scripts.items(), start=10):
            hook = element / phase / f"{number}-mine-{name}"
            head = f'WITNESS="{outside.witness}"; PORT={outside.port}\nset -eu'
            hook.write_text(f"#!/bin/bash\n{head}\n{script}\necho '{name}: done'\n")
            hook.chmod(0o755)
    begun = time.monotonic()
    built = build_rootfs(
        outside.host, folder / "work", ["mine"], elements_path=[element.parent], is_alone=True
    )
    return built, time.monotonic() - begun


@pytest.mark.parametrize("group", range(GROUPS))
def test_what_an_element_tries_stays_in_its_build(
    outside: Outside, tmp_path: Path, group: int
) -> None:
    before = outside.picture()
    inside, beside = ([*table.items()][group::GROUPS] for table in (INSIDE, BESIDE))
    hooks = {"install.d": dict(inside), "extra-data.d": dict(beside)}
    built, seconds = build(outside, tmp_path, hooks)
    last = "\n".join(line[:200] for line in built.log.splitlines()[-25:])
    assert built.returncode == 0, last
    for name, _ in (*inside, *beside):
        assert f"{name}: done" in built.log, f"{name}: {last}"
    assert built.tar.stat().st_size > 1_000_000
    assert outside.picture() == before
    assert seconds < END_S


def ends(outside: Outside, folder: Path, name: str) -> None:
    before = outside.picture()
    phase, script = ENDS[name]
    built, seconds = build(outside, folder, {phase: {name: script}})
    assert built.returncode != 0, built.log[-2000:]
    assert not built.tar.exists() or built.tar.stat().st_size == 0
    assert built.log.strip()
    assert outside.picture() == before
    assert seconds < END_S


@pytest.mark.parametrize("name", QUICK)
def test_what_ends_a_build_ends_nothing_else(outside: Outside, tmp_path: Path, name: str) -> None:
    ends(outside, tmp_path, name)


@pytest.mark.matrix
@pytest.mark.parametrize("name", [name for name in ENDS if name not in QUICK])
def test_nor_does_any_other(outside: Outside, tmp_path: Path, name: str) -> None:
    ends(outside, tmp_path, name)
