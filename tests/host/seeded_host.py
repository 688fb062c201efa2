"""Hosts below a folder with pitfalls on them, and doit there: /usr is this machine's, read only.

Xen is not there: /proc/xen/capabilities and what `xl info` says are files of the host. All else is
real: GRUB's, LVM's and systemd's own programs read what doit would change, in a chroot.
`python -m tests.host.seeded_host WORD...` is doit on the host that DOMU_ROOT names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline import __main__ as program
from pipeline.dom0 import toolstack

ROOT = Path(__file__).resolve().parents[2]
CAPABILITIES = "run/xen/capabilities"
# mounts of a namespace that ends with the command; the fake xl comes first on doit's PATH
_MOUNTS = (
    'mount --bind "$0" "$0"; if [ ! -e "$0/usr/lib" ]; then mount -o bind,ro /usr "$0/usr"; fi; '
    'mount --bind "$0/run/system-packages.txt" system-packages.txt; '
    'mount -o bind,ro "$0/run/xen/bin" /usr/local/sbin; exec "$@"'
)
_XL = """#!/bin/sh
cat {root}/run/xen/"$1"
"""
INFO = {
    "nr_cpus": "2",
    "total_memory": "4096",
    "xen_version": "4.17.7",
    "xen_caps": "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64",
    "cc_compile_domain": "lists.alioth.debian.org",
    "cc_compile_date": "Wed Nov  4 16:52:28 UTC 2026",
}
STATUS = "Package: {}\nStatus: install ok installed\nVersion: {}\n\n"
GRUB = 'GRUB_CMDLINE_XEN="{}"\nGRUB_CMDLINE_LINUX="{}"\n'
LENNY = """default\t\t0

### BEGIN AUTOMAGIC KERNELS LIST
## ## Start Default Options ##
# kopt=root=/dev/sda1 ro
# xenhopt={}
# xenkopt={}
## ## End Default Options ##

title\t\tXen 3.2-1-i386 / Debian GNU/Linux, kernel 2.6.26-2-xen-686
### END DEBIAN AUTOMAGIC KERNELS LIST
"""
Files = Mapping[str, str | bytes | None]
GOOD: Files = {
    "etc/debian_version": "12.12\n",
    "etc/default/grub": GRUB.format("dom0_mem=1G,max:1G", "quiet"),
    "etc/lvm/lvm.conf": '# ours\ndevices {\n\tdir = "/dev"\n}\n',
    "etc/xen/xl.conf": '## Global XL config file ##\n#autoballoon="auto"\n',
    "etc/default/xendomains": "XENDOMAINS_AUTO=/etc/xen/auto\nXENDOMAINS_SAVE=/var/lib/xen/save\n",
    "proc/7/comm": "xenconsoled\n",
    "proc/8/comm": "xenstored\n",
    "sys/class/net/br-xen/bridge/x": "",
    "boot/vmlinuz-6.1.0-9-amd64": "",
    "boot/initrd.img-6.1.0-9-amd64": "",
    "boot/config-6.1.0-9-amd64": "CONFIG_XEN_DOM0=y\n",
    "boot/xen-4.17-amd64.gz": "",
    "boot/grub/grub.cfg": "",
    CAPABILITIES: "control_d\n",
    "run/system-packages.txt": "# this machine's programs do not count\n",
}
OLD: Files = {
    **{name: None for name in GOOD if name.startswith(("etc/default", "etc/xen", "boot"))},
    "etc/debian_version": "5.0.10\n",
    "boot/grub/menu.lst": LENNY.format("dom0_mem=256M", "console=tty0"),
    "etc/xen/xend-config.sxp": "(vif-script vif-bridge)\n(dom0-min-mem 256)\n(dom0-cpus 1)\n",
    "etc/inittab": "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n",
}


class SeededHost:
    """A host that is well, but for `files` (None: there is none) and what `info` says otherwise."""

    def __init__(self, root: Path, files: Files, info: Mapping[str, str]) -> None:
        self.root = root
        is_32 = not {**INFO, **info}["xen_caps"].startswith("xen-3.0-x86_64")
        self.arch = ["setarch", "i686"] if is_32 else []
        for name in ("usr", "dev", "tmp", "proc", "run/xen/bin", "var/lib/dpkg", "etc"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        shutil.copytree("/etc/grub.d", root / "etc/grub.d", symlinks=True)
        for name, text in {**GOOD, **files}.items():
            self.write(name, text)
        said = {**INFO, **info}
        self.write("run/xen/info", "".join(f"{key} : {value}\n" for key, value in said.items()))
        self.write("run/xen/list", "Name ID Mem VCPUs State Time\nDomain-0 0 1024 2 r----- 9.9\n")
        script = root / "run/xen/bin/xl"
        script.write_text(_XL.format(root=root))
        script.chmod(0o755)

    def write(self, name: str, text: str | bytes | None) -> None:
        """A file below the host; "-> x" is a link."""
        path = self.root / name
        path.unlink(missing_ok=True)
        if text is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, str) and text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        else:
            path.write_bytes(text.encode() if isinstance(text, str) else text)

    def doit(self, *words: str) -> tuple[int, str]:
        """Exit code and what was said."""
        argv = [*self.arch, sys.executable, "-m", "tests.host.seeded_host", *words]
        folder = self.root.parent
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-ec", _MOUNTS, self.root, *argv],
            cwd=ROOT,
            env={
                **os.environ,
                "DOMU_ROOT": str(self.root),
                "DOMU_OUTPUT": str(folder / "output"),
                "DOMU_GUESTS": str(folder / "guests"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def find(self) -> dict[str, dict[str, object]]:
        """What the doctor finds, by code, but for what this machine's kernel is found for."""
        _, said = self.doit("doctor", "dry=yes", "json=yes")
        answer, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
        return {
            finding["code"]: finding
            for finding in answer["findings"]
            if finding["code"] != "vsyscall"
        }

    def stock(self) -> dict[str, tuple[object, ...]]:
        """Every file of the host's but our own state: link or bytes, mode, owner, time."""
        stand: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_dir() or name.startswith(("var/lib/domu", "run/")):
                continue
            state = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes()
            stand[name] = (content, state.st_mode, state.st_uid, state.st_mtime_ns)
        return stand


def main() -> None:
    """doit, with Xen's files those of the host."""
    toolstack.CAPABILITIES = Path(os.environ["DOMU_ROOT"], CAPABILITIES)
    program.main()


if __name__ == "__main__":
    main()
