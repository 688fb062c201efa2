"""The cage: where everything runs that strangers wrote, or that reads what they made.

Two kinds. `caged` is for builders (package scripts, elements, unpacking, depmod): root of a user
namespace whose ids no account of the host has, with namespaces of its own for mounts, processes,
host name, IPC and network, under a root that holds the host's programs read-only and one writable
folder, its room. `caged_reader` is for one tool that reads hostile bytes (debugfs, e2fsck): the
caller's own id, no capability, and only the files that are named. In both every path has a plain
name (`place_in_cage`): sources.list, PATH, shells and e2fsprogs take other letters apart.
`caged_script` goes a step further in a builder's cage: the tree itself becomes the root, without
the capabilities that no package script needs.

The walls are the kernel's: bubblewrap (bwrap(1)) sets them up, user_namespaces(7) says why root of
one has no rights outside. docs/explanation/security.md says what they promise and what not.
"""

import hashlib
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pipeline import PACKAGE, process
from pipeline.namespace import MAP_OWN, Mount, is_root
from pipeline.process import Walled

FIRST_ID = 0x70000000  # no account: between systemd's container and foreign ranges (UIDS-GIDS)
IDS = 65536
RELAY_PORT = 3142
TREE_FILE_KIB = 16 << 20  # the largest file that a builder may write
PROCESSES = 4096
# where the caller's own limits are lower, they stay
_LIMITS = tuple(
    f"{{ ulimit {limit} || :; }} 2>/dev/null"
    for limit in ("-c 0", f"-f {TREE_FILE_KIB * 2}", f"-p {PROCESSES}")
)
TOOLS = {"bwrap": "bubblewrap", "newuidmap": "uidmap", "unshare": "util-linux"}
# what programs read of /etc; none of it is secret
_ETC = (
    *("alternatives", "ca-certificates.conf", "debian_version", "dpkg", "group", "ld.so.cache"),
    *("ld.so.conf", "ld.so.conf.d", "localtime", "mke2fs.conf", "os-release", "passwd", "perl"),
    *("protocols", "services", "ssl/certs", "ssl/openssl.cnf", "mtab"),
)
# what no program that is told a path takes apart
_ODD = re.compile(r"[^A-Za-z0-9._+-]")
_READERS_ETC = ("ld.so.cache", "mke2fs.conf", "mtab", "passwd", "group")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# a package script changes owners and ids; it mounts nothing, makes no device, sees no raw hardware
_SCRIPT_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "SETFCAP", "SYS_CHROOT", "NET_BIND_SERVICE", "AUDIT_WRITE"),
)
# bwrap's words for a program of the tree: its own processes, and no right that it has no use for
SCRIPT_WALLS = (
    *("--die-with-parent", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL"),
    *(word for name in _SCRIPT_CAPABILITIES for word in ("--cap-add", f"CAP_{name}")),
)
_LISTEN = (
    "import socket,sys;"
    f"s=socket.create_server(('127.0.0.1',{RELAY_PORT}));"
    "socket.send_fds(socket.socket(fileno=int(sys.argv[1])),[b'.'],[s.fileno()])"
)


class Window:
    """The one way out of a cage without a network: a listening socket in it, served from outside.

    A process in the cage opens it on its loopback and hands it over; nobody else on the host can
    connect to it. `descriptor` has to be kept open for the caged command.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.descriptor = self._theirs.fileno()
        self.address = f"http://127.0.0.1:{RELAY_PORT}"

    def receive(self) -> socket.socket | None:
        """Wait for the listening socket; None when the window is closed before it comes."""
        try:
            _, descriptors, _, _ = socket.recv_fds(self._ours, 1, 1)
        except OSError:
            return None
        return socket.socket(fileno=descriptors[0]) if descriptors else None

    def close(self) -> None:
        """No socket is wanted any more; wakes up who waits for it."""
        self._ours.shutdown(socket.SHUT_RDWR)
        self._theirs.close()
        self._ours.close()


def place_in_cage(path: Path) -> Path:
    """Where a path of the host is in a builder's cage: there too, if its letters are plain ones."""

    def name(part: str) -> str:
        if not _ODD.search(part):
            return part
        return f"{_ODD.sub('_', part)[:40]}-{hashlib.sha256(os.fsencode(part)).hexdigest()[:8]}"

    return Path("/", *map(name, path.parts[1:]))


def make_room(folder: Path) -> Path:
    """Make a folder that a builder's cage may write to: what it leaves there is not to be trusted.

    Bring results out with `beneath.take`.
    """
    folder.mkdir(mode=0o700)
    if is_root():
        os.chown(folder, first_id(), first_id())
    return folder


def first_id() -> int:
    """What 0 is outside a builder's cage: an id without rights, where this machine has one.

    In a container that has few ids itself, its own: its root has no rights on the machine either.
    """
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        start, _, count = map(int, line.split())
        if start <= FIRST_ID and start + count >= FIRST_ID + IDS:
            return FIRST_ID
    return 0


def caged(
    argv: Sequence[object],
    *,
    room: Path,
    readable: Iterable[Path] = (),
    writable: Iterable[Path] = (),
    mounts: Sequence[Mount] = (),
    before: Sequence[Sequence[object]] = (),
    window: Window | None = None,
    shares_network: bool = False,
    mounts_files: bool = False,
) -> Walled:
    """The command line that runs `argv` in a builder's cage, as root of nothing but itself.

    It may write to `room` and `writable`, and read `readable`; wherever it is told of them, they
    become their places in the cage. `mounts` are made in it first, then the commands of `before`
    run, of which `cd` is one; the first that fails ends it. Its only connection, but with
    `shares_network`, is `window`. `mounts_files` is for file systems that only the machine's root
    may mount: it stays that root, sees the machine's devices, and runs our own programs alone, on
    files that strangers made.
    """
    given, changed = [*readable, *_own_program()], [room, *writable]
    rename = _renamer([*changed, *given])
    first: list[Sequence[object]] = [mount.argv() for mount in mounts]
    if window is not None:
        first.append([sys.executable, "-I", "-S", "-c", _LISTEN, str(window.descriptor)])
    steps = [shlex.join(map(rename, step)) for step in (*first, *before)]
    etc = _write_etc(shares_network=shares_network)
    walled = [
        *("unshare", *(() if is_root() else MAP_OWN), "--mount", "--pid", "--fork"),
        *("--kill-child=KILL", "--propagation", "private", "--mount-proc", "--"),
        *("bwrap", "--die-with-parent", "--unshare-uts", "--hostname", "build"),
        *(() if shares_network else ("--unshare-net",)),
        *("--cap-add", "ALL", *_root(shares_network=shares_network), "--bind", "/proc", "/proc"),
        *(("--dev-bind", "/dev", "/dev") if mounts_files else ()),
        *_binds(given, "--ro-bind"),
        *_binds(changed, "--bind"),
        *("--", "sh", "-c", f'{etc}exec "$@"', "sh"),
        *("unshare", *(() if mounts_files else _own_ids()), "--mount", "--uts", "--ipc", "--pid"),
        *("--fork", "--kill-child=KILL", "--mount-proc", "--"),
        *("sh", "-c", " && ".join([*_LIMITS, *steps, 'exec "$@"']), "sh", *map(rename, argv)),
    ]
    return Walled(walled, argv, rename)


def _renamer(paths: Iterable[Path]) -> Callable[[object], str]:
    """What gives a text with any of these paths as it is for a cage."""
    places = {str(path): str(place_in_cage(path)) for path in paths}
    odd = sorted((path for path in places if path != places[path]), key=len, reverse=True)

    def rename(text: object) -> str:
        told = str(text)
        for path in odd:
            told = told.replace(path, places[path])
        return told

    return rename


def caged_reader(
    argv: Sequence[object],
    *,
    readable: Iterable[Path] = (),
    writable: Iterable[Path] = (),
    folder: Path = Path("/"),
    is_own: bool = False,
) -> Walled:
    """The command line of one tool that reads what strangers made, with no right but to do that.

    `readable` and `writable` are files, folders or block devices; nothing else of the host is there
    but its programs, and this one where it is our `is_own`. It starts in `folder`.
    """
    given, changed = [*readable, *(_own_program() if is_own else ())], list(writable)
    rename = _renamer([*given, *changed])
    user = [] if is_root() else ["--unshare-user"]
    walled = [
        *("bwrap", "--die-with-parent", *user, "--unshare-pid", "--unshare-net", "--unshare-ipc"),
        *("--unshare-uts", "--cap-drop", "ALL", *_programs(_READERS_ETC)),
        *(word for name in ("null", "urandom") for word in ("--dev-bind", *[f"/dev/{name}"] * 2)),
        # as root's own id it could write to /proc/sys, whose files ask for the owner alone
        *("--proc", "/proc", "--remount-ro", "/proc"),
        *_binds(given, "--ro-bind"),
        *_binds(changed, "--bind"),
        *("--chdir", str(place_in_cage(folder)), "--", *map(rename, argv)),
    ]
    return Walled(walled, argv, rename)


def caged_script(
    argv: Sequence[object], *, tree: Path, readable: Iterable[tuple[Path, str]] = ()
) -> Walled:
    """The command line of a program of a tree, with the tree as its root; for a builder's cage.

    `readable` are files that are seen in the tree, each at a path of it.
    """
    given = [word for path, place in readable for word in ("--ro-bind", str(path), place)]
    walled = [
        *("bwrap", *SCRIPT_WALLS, "--bind", str(tree), "/"),
        *("--proc", "/proc", "--dev", "/dev", *given, "--chdir", "/", "--", *map(str, argv)),
    ]
    return Walled(walled, argv)


def _own_ids() -> list[str]:
    """A second user namespace for real root; an ordinary user is in one already."""
    if not is_root():
        return []
    ids = f"{first_id()},0,{IDS}"
    return ["--user", f"--map-users={ids}", f"--map-groups={ids}", "--setuid=0", "--setgid=0"]


def _write_etc(*, shares_network: bool) -> str:
    """Files of the cage's own /etc: what newuidmap(1) reads, and a resolver that knows nobody."""
    line = f"root:{first_id()}:{IDS}"
    names = ["subuid", "subgid"] if is_root() else []
    steps = [f"echo {line} >/etc/{name}" for name in names]
    steps += [] if shares_network else [": >/etc/resolv.conf"]
    return "".join(f"{step}; " for step in ("umask 022", *steps))


def _root(*, shares_network: bool) -> Iterator[str]:
    """bwrap's words for a builder's root: the host's programs and nothing secret or its own."""
    names = (*_ETC, "resolv.conf", "hosts", "nsswitch.conf") if shares_network else _ETC
    yield from _programs(names)
    yield from ("--dev", "/dev")
    for place in ("/run", "/var", "/var/tmp", "/root"):
        yield from ("--perms", "1777", "--dir", place)


def _programs(etc: Iterable[str]) -> Iterator[str]:
    """The host's programs, files of /etc that they read, a /tmp of their own."""
    yield from ("--perms", "1777", "--tmpfs", "/tmp", "--ro-bind", "/usr", "/usr")
    for name in _MERGED:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    for folder in process.PATH.split(":"):
        if not folder.startswith(("/usr/", "/bin", "/sbin")):
            yield from _binds([Path(folder)], "--ro-bind")
    yield from ("--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl")
    for name in etc:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")


def _binds(paths: Iterable[Path], how: str) -> Iterator[str]:
    """bwrap's words for paths at their place; folders above them may be passed through."""
    for path in paths:
        place = place_in_cage(path)
        for parent in reversed(place.parents[:-1]):
            yield from ("--perms", "0755", "--dir", str(parent))
        yield from ("--dev-bind" if path.is_block_device() else how, str(path), str(place))


def _own_program() -> list[Path]:
    """This program and its Python, for what runs them in the cage."""
    places = dict.fromkeys([sys.prefix, sys.base_prefix])
    outside = [Path(place) for place in places if not place.startswith("/usr")]
    return [*outside, PACKAGE]
