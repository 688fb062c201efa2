"""A tree that is no Debian, but has what hooks run in it: a few of this host's own programs."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.process import PATH
from pipeline.stages.dib.dib import SHIMS
from pipeline.walls.cage import SCRIPT_WALLS

ELEMENTS = Path(__file__).resolve().parents[2] / "elements"
PROGRAMS = """
sh bash cat chmod chown cp cut dirname basename env find grep ln ls mkdir mv rm rmdir sed sort tar
test touch sleep xargs id timeout head tr mount umount mknod mkfifo chroot printf kill true
""".split()
FILES = {
    "etc/apt/sources.list": "deb http://mirror.test/debian bookworm main\n",
    "etc/apt/sources.list.d/more.list": "deb http://mirror.test/more bookworm main\n",
    "etc/hostname": "builder\n",
    "etc/machine-id": "0123\n",
    "etc/passwd-": "old\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/ssh/ssh_host_rsa_key": "a key\n",
    "root/.ssh/authorized_keys": "a key\n",
    "root/first.log": "said\n",
    "var/backups/dpkg.0": "old\n",
    "var/cache/apt/pkgcache.bin": "cached\n",
    "var/cache/debconf/config.dat-old": "old\n",
    "var/lib/apt/lists/a_Packages": "Package: a\n",
    "var/lib/dbus/machine-id": "0123\n",
    "var/lib/dpkg/status-old": "old\n",
    "var/lib/man-db/auto-update": "",
    "var/lib/systemd/random-seed": "seed\n",
    "var/log/dpkg.log": "said\n",
    "var/log/wtmp": "said\n",
    "var/tmp/left": "left\n",
    "tmp/left": "left\n",
    "run/left": "left\n",
    "usr/lib/modules/1.0/modules.dep": "a.ko:\n",
    "usr/local/bin/install-packages": "#!/bin/sh\n",
    "usr/share/there": "stays\n",
}
FOLDERS = (
    *("dev", "proc", "sys", "etc/apt/apt.conf.d", "etc/dpkg/dpkg.cfg.d", "usr/sbin"),
    *("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "usr/local/sbin"),
)

_RUN = r"""
set -e
mount --bind "$1" /mnt
shift
for folder in /tmp /var/tmp /srv /home /var/local; do
    /usr/bin/mount -t tmpfs -o size=1M tmpfs "$folder"
    touch "$folder/witness"
done
for hook; do
    said=$(timeout 20 bash "$hook" 2>&1) || printf '\0%s\n%s' "${hook##*/}" "$said"
done
for folder in /tmp /var/tmp /srv /home /var/local; do
    [ "$(ls "$folder")" = witness ] || printf '\0%s\n%s' "$folder" "changed: $(ls "$folder")"
done
"""


def make_small_tree(tree: Path) -> Path:
    """The programs with the libraries that they load, merged /usr, and files that hooks touch."""
    for name in ("bin", "lib", "lib64"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    programs = [shutil.which(name, path=PATH) for name in PROGRAMS]
    assert None not in programs, dict(zip(PROGRAMS, programs, strict=True))
    for program in programs:
        shutil.copy(Path(str(program)).resolve(), tree / "usr/bin" / Path(str(program)).name)
    listed = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, check=True
    )
    for library in {
        word for word in listed.stdout.split() if word.startswith("/") and ".so" in word
    }:
        place = tree / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(library).resolve(), place)
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    put_files(tree)
    return tree


def put_files(tree: Path) -> None:
    """What hooks change or remove, also as a host has it."""
    for name, text in FILES.items():
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def take_picture(folder: Path) -> dict[str, str]:
    """Every entry below a folder with its kind, mode, target and bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = f"{status.st_mode:o} {status.st_uid}"
        if path.is_symlink():
            what += f" -> {os.readlink(path)}"
        elif path.is_file():
            what += f" {path.read_bytes()!r}"
        found[str(path.relative_to(folder))] = what
    return found


@dataclass
class Bench:
    """A tree to run hooks on, and a folder of the host that must not change."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        return self.folder / "build" / "mnt"

    @property
    def host(self) -> Path:
        return self.folder / "host"

    def run_hooks(self, hooks: list[Path]) -> dict[str, str]:
        """Run hooks one after the other; hook -> what it said, of those that failed.

        The folders that innocent links lead to are empty ones here: a mistake stays without harm.
        """
        # a checkout below /tmp would be hidden with it
        seen = [Path("/mnt/elements") / hook.relative_to(ELEMENTS) for hook in hooks]
        done = subprocess.run(
            ["unshare", "--mount", "--", "bash", "-c", _RUN, "bash", self.folder, *seen],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )
        parts = done.stdout.decode(errors="replace").split("\0")[1:]
        return dict(part.split("\n", 1) for part in parts)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"/mnt/shims:{PATH}",
            "LC_ALL": "C.UTF-8",
            "DIB_DOMU_WALLS": " ".join(SCRIPT_WALLS),
            "TMPDIR": "/mnt",
            "TARGET_ROOT": "/mnt/build/mnt",
            "TMP_MOUNT_PATH": "/mnt/build/mnt",
            "TMP_BUILD_DIR": "/mnt/build",
            "SOURCE_DATE_EPOCH": "1700000000",
            "DISTRO_NAME": "debian",
            "DIB_INIT_SYSTEM": "systemd",
            "DIB_DOMU_NETWORK_TOOL": "networkd",
            "DIB_DOMU_EXPORT": "/mnt/rootfs.tar",
            "DIB_DOMU_BUILD_SOURCES": "/mnt/build.list",
            "DIB_DOMU_APT_LISTS": "/mnt/lists",
            "DIB_DOMU_APT_SHORT_LISTS": "/mnt/lists",
            "DIB_GUEST_SOURCES_FILE": "/mnt/guest.list",
            "DIB_GUEST_SOURCES_DATES": "ignore",
            "DIB_KERNEL_MODULES_TAR": "/mnt/modules.tar",
            "DIB_KERNEL_MODULES_DIR": "/mnt/modules",
            **self.settings,
        }


def hooks_of_phase(phase: str) -> list[Path]:
    """Our elements' hooks of a phase, but the one that unpacks the base, in their order."""
    found = [path for path in ELEMENTS.glob(f"*/{phase}.d/*") if path.name != "10-domu"]
    return sorted(found, key=lambda path: path.name)


@pytest.fixture(scope="session")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; take a copy."""
    return make_small_tree(tmp_path_factory.mktemp("small"))


def make_bench(small_tree: Path, folder: Path) -> Bench:
    """A bench with a copy of the small tree."""
    bench = Bench(folder)
    (folder / "build").mkdir(parents=True)
    subprocess.run(["cp", "-a", "--reflink=auto", small_tree, bench.tree], check=True)
    put_files(bench.host)
    for name, source in (("elements", ELEMENTS), ("shims", SHIMS)):
        shutil.copytree(source, folder / name, symlinks=True)
    (folder / "lists").mkdir()
    (folder / "lists/b_Packages").write_text("Package: b\n")
    (folder / "build.list").write_text("deb http://build.test/debian bookworm main\n")
    (folder / "guest.list").write_text("deb http://guest.test/debian bookworm main\n")
    (folder / "modules/2.0").mkdir(parents=True)
    (folder / "modules/2.0/modules.dep").write_text("b.ko:\n")
    subprocess.run(
        ["tar", "-C", folder / "modules", "-cf", folder / "modules.tar", "2.0"], check=True
    )
    (folder / "build/domu-copied").write_text("domu.copied\n")
    return bench
