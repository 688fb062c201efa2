"""What an attacker would try in the cage: `python -m tests.host.cage_attempts ROOM WITNESS PORT`.

Prints what the attempts said, from the builder's cage and from a tree in it; the caller looks at
what they changed.
"""

import os
import shlex
import sys
from pathlib import Path

from pipeline import process
from pipeline.walls.cage import caged, caged_script, make_room

# another value than the one that is there: what was changed before would not show
OTHER_SYSCTL = "echo $(( ($(cat /proc/sys/vm/swappiness) + 1) % 100 )) >/proc/sys/vm/swappiness"
# each is a line of shell that an attacker would try; it may fail or not, but nothing may come of it
ATTEMPTS = {
    "reads the host's shadow": "cat /etc/shadow",
    "reads it by process 1": "cat /proc/1/root/etc/shadow",
    "writes by process 1": "echo owned >/proc/1/root{witness}/file",
    "writes where it lies": "echo owned >{witness}/file; echo owned >{witness}/new",
    "removes it": "rm -rf {witness}",
    "makes it setuid": "chmod 4777 {witness}/file",
    "sets a sysctl": OTHER_SYSCTL,
    "sets the core pattern": "echo '|/bin/sh' >/proc/sys/kernel/core_pattern",
    "asks for a reboot": "echo b >/proc/sysrq-trigger",
    "changes the host's name": "hostname owned; echo owned >/proc/sys/kernel/hostname",
    "makes a disk's node": "mknod /tmp/disk b 254 0 && cat /tmp/disk | head -c 1",
    "mounts a disk": "mkdir -p /tmp/m; mount /dev/vda /tmp/m && ls /tmp/m/etc",
    "mounts the host's tree again": "mount -t proc p /tmp; cat /tmp/1/root/etc/shadow",
    "makes the programs writable": "mount -o remount,rw,bind /usr; echo x >/usr/owned",
    "enters the first process": "nsenter --target 1 --mount cat /etc/shadow",
    "loads a module": "insmod /tmp/x.ko; modprobe loop",
    "kills everybody": "kill -9 -1",
    "sees the host's processes": "ls /proc | grep -x {pid}",
    "connects to the host": "exec 3<>/dev/tcp/127.0.0.1/{port}; echo owned >&3",
    "sends a signal to the tests": "kill -TERM {pid}",
    "reads root's files": "cat /root/*; ls /root/.ssh /home",
    "reads the mirrors' passwords": "cat /etc/apt/auth.conf /etc/apt/auth.conf.d/*",
    "dumps core": "ulimit -c unlimited; sh -c 'kill -SEGV $$'",
    "leaves a link": "ln -s {witness}/file {room}/link; ln {witness}/file {room}/hard",
}


def attempt_lines(room: Path, witness: Path, port: int) -> list[str]:
    """The attempts, aimed at a folder and a listening port of the machine."""
    aim = {"witness": witness, "pid": os.getpid(), "port": port, "room": room}
    return [attempt.format(**aim) for attempt in ATTEMPTS.values()]


def run_lines(room: Path, lines: list[str], *, in_tree: bool) -> str:
    """All lines, each a program of its own, in the cage or with a tree of it as their root."""
    steps = [["mkdir", "-p", f"{room}/tree/{name}"] for name in ("usr", "proc", "dev", "tmp")]
    steps += [["cp", "-a", "/bin", "/lib", "/lib64", "/sbin", f"{room}/tree"]]
    programs = [(Path("/usr"), "/usr")]
    words = []
    for line in lines:
        argv = ["bash", "-c", line]
        if in_tree:
            argv = list(caged_script(argv, tree=room / "tree", readable=programs))
        words.append(f"timeout -s KILL 20 {shlex.join(argv)} 2>&1 | head -c 2000")
    return process.run(caged(["sh", "-c", "; ".join(words)], room=room, before=steps))


def main(room: Path, witness: Path, port: int) -> None:
    """Both places, one after the other."""
    for name, in_tree in (("builder", False), ("script", True)):
        place = make_room(room / name)
        print(run_lines(place, attempt_lines(place, witness, port), in_tree=in_tree))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
