"""A private namespace that dies with the build: what is mounted in it cannot leak.

The kernel does the undoing: run() has every command killed when the build dies (PR_SET_PDEATHSIG),
`--kill-child=KILL` then ends everything in its PID namespace with it, and the mount
namespace vanishes with its last process, loop devices with autoclear included (unshare(1)).
An ordinary user gets the same in a user namespace with the subordinate ids of /etc/subuid.
"""

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CommandFailed, EnvironmentFault

# what keeps an ordinary user from a namespace: name, the value that does, a better one
_SETTINGS = (
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)
MAP_OWN = ("--map-root-user", "--map-auto")  # for an ordinary user
_ALONE = ("--mount", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private")


@dataclass(frozen=True)
class Mount:
    """One mount made inside the namespace before the command starts."""

    target: Path
    kind: str
    source: str = "none"
    options: str = ""

    def argv(self) -> list[str]:
        """The mount(8) command line."""
        if self.kind == "bind":
            return ["mount", "--bind", self.source, str(self.target)]
        options = ["-o", self.options] if self.options else []
        return ["mount", "-t", self.kind, *options, self.source, str(self.target)]


def tmpfs(target: Path, *, mode: str = "0755") -> Mount:
    """An empty memory file system over `target`."""
    return Mount(target, "tmpfs", "tmpfs", f"mode={mode}")


def bind(source: Path, target: Path) -> Mount:
    """`source` seen at `target` too."""
    return Mount(target, "bind", str(source))


def is_root() -> bool:
    """True when no user namespace is needed."""
    return os.geteuid() == 0


def isolated(
    argv: Sequence[object], *, mounts: Sequence[Mount] = (), before: Sequence[Sequence[object]] = ()
) -> list[str]:
    """The command line that runs `argv` in a namespace of its own.

    `mounts` are made first, then the commands of `before` run; the first that fails ends it.
    """
    words = [str(word) for word in argv]
    who = () if is_root() else MAP_OWN
    prefix = ["unshare", *who, *_ALONE, "--mount-proc", "--"]
    if not mounts and not before:
        return [*prefix, *words]
    steps = [shlex.join(mount.argv()) for mount in mounts]
    steps += [shlex.join(map(str, step)) for step in before]
    script = " && ".join([*steps, 'exec "$@"'])
    return [*prefix, "sh", "-c", script, "sh", *words]


def require_namespace(run: Callable[..., object]) -> None:
    """Raises EnvironmentFault where this user gets no such namespace, with the reason.

    Every stage that needs one asks first: the answer costs some milliseconds.
    """
    try:
        # alone first: with --map-auto, util-linux 2.38's helper waits for ever after a refusal
        run(["unshare", "--user", "--", "true"])
        run(isolated(["true"]))
    except CommandFailed as error:
        cause, fix = _explain_refusal(error.details)
        raise EnvironmentFault(cause, details=error.details, hint=fix) from error


def _explain_refusal(said: str) -> tuple[str, str]:
    """What is wrong and what to do, from unshare(1)'s words and the kernel's settings."""
    if re.search("subuid|subgid|newuidmap|newgidmap", said):
        ids = "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"
        return "this user has no subordinate ids", f"as root: apt-get install uidmap; {ids}"
    if _is_chroot():
        return (
            "this is a chroot, in which Linux makes no user namespace, not even for root",
            "enter the tree by pivot_root: systemd-nspawn -D FOLDER; or bwrap --bind FOLDER / "
            "--dev-bind /dev /dev --proc /proc --cap-add ALL sh",
        )
    if re.search("mount.*/proc", said):
        return (
            "this container hides parts of /proc, so no namespace here may have its own",
            "start it with --security-opt systempaths=unconfined, see docs/how-to/ci.md",
        )
    forbidden = "user namespaces are forbidden on this machine"
    for name, value, better in _SETTINGS:
        path = Path("/proc/sys") / name.replace(".", "/", 1)
        if path.is_file() and path.read_text().strip() == value:
            return f"{forbidden}: {name} is {value}", f"as root: sysctl {name}={better}"
    return forbidden, "allow this container to make them, see docs/how-to/ci.md"


def _is_chroot() -> bool:
    """Whether / is not that of process 1, or no mount point (user_namespaces(7), EPERM)."""
    try:
        return not os.path.samestat(os.stat("/proc/1/root/."), os.stat("/."))
    except OSError:  # an ordinary user may not look
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return all(line.split()[4] != "/" for line in lines)


def has_memory_for_tmpfs(need_mib: int) -> bool:
    """True when the machine has twice `need_mib` of memory available (proc(5), MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024 >= 2 * need_mib
    return False
