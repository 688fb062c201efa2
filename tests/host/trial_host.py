"""A host in namespaces of its own, at whose `doit dom0 now=yes` somebody looks over TCP, as by SSH.

Run by test_dom0_trial.py in a new mount and network namespace: this machine's root with ifupdown's
programs over it, a copy of /etc, a card whose other end is the router's. It prints what it sees as
JSON.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.patience import wait_for

ROUTER, OWN, PORT = "192.168.7.1", "192.168.7.5", 2222
INTERFACES = f"""auto lo
iface lo inet loopback

# the office
auto eth0
iface eth0 inet static
    address {OWN}/24
    gateway {ROUTER}
"""
_SET_UP = """
set -e
mount -t overlay -o "lowerdir=$1/sbin:/usr/sbin" overlay /usr/sbin
mount -t overlay -o "lowerdir=$1/lib:/usr/lib" overlay /usr/lib
mount -t sysfs none /sys
mount -t tmpfs none /run && mkdir /run/network
mount --bind "$1/etc" /etc
mkdir -p /var/lib/domu && mount --bind "$1/domu" /var/lib/domu
ip link add eth0 type veth peer name out0 netns "$2"
nsenter --target "$2" --net ip addr add "$3/24" dev out0
nsenter --target "$2" --net ip link set out0 up
ifup -a
"""
_LISTEN = """
import socket, sys
line = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=200)
while said := line.recv(4096):
    sys.stdout.buffer.write(said)
    sys.stdout.flush()
"""


def look() -> list[str]:
    """The files of /etc with mode and time, addresses, routes."""
    script = "find /etc ! -type d -printf '%p %m %T@ %l\\n' | sort; cat /etc/network/interfaces;"
    script += "ip -brief -4 address; ip route"
    return subprocess.check_output(["sh", "-c", script], text=True).splitlines()


def main(folder: Path, scenario: str) -> dict[str, object]:
    outside = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    own = os.readlink("/proc/self/ns/net")
    wait_for(lambda: os.readlink(f"/proc/{outside.pid}/ns/net") != own, "a network of its own")
    words = ["sh", "-c", _SET_UP, "sh", str(folder), str(outside.pid), ROUTER]
    subprocess.run(words, check=True, stdout=sys.stderr)
    seen: dict[str, object] = {"before": look()}
    with socket.create_server(("0.0.0.0", PORT)) as server:
        listen = [sys.executable, "-c", _LISTEN, OWN, str(PORT)]
        listener = subprocess.Popen(
            ["nsenter", "--target", str(outside.pid), "--net", *listen],
            stdout=subprocess.PIPE,
            text=True,
        )
        near, peer = server.accept()
        line = near.fileno()
    environment = {**os.environ, "SSH_CONNECTION": f"{ROUTER} {peer[1]} {OWN} {PORT}"}

    def begin(*words: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "pipeline", "dom0", *words]
        return subprocess.Popen(argv, stdin=line, stdout=line, stderr=line, env=environment)

    command = begin("now=yes", "watch=30")
    if scenario == "killed":
        while not Path("/sys/class/net/br-xen").exists() and command.poll() is None:
            time.sleep(0.05)
        command.kill()
    seen["status"], seen["between"] = command.wait(), look()
    if scenario == "killed":
        watch = Path("/var/lib/domu/host/watch.json")
        wait_for(lambda: not watch.exists() and look() == seen["before"], "what was before")
    if scenario == "right":
        seen["undone"] = begin("undo=yes", "now=yes", "watch=60").wait()
    seen["after"] = look()
    near.close()
    seen["heard"] = listener.communicate(timeout=240)[0]
    outside.kill()
    outside.wait()
    return seen


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
