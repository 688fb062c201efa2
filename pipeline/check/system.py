"""The guest's system: names, machine id, debconf, console, udev, time zone, sources, leftovers."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from pipeline.check.facts import Facts, compare, judge
from pipeline.check.image import MOST_FILE
from pipeline.check.tree import Tree
from pipeline.errors import Finding
from pipeline.guest.identity import name_device
from pipeline.mirror.stanzas import find_stanzas, read_fields, read_stanzas
from pipeline.spec import Spec

_MOVING = re.compile(r"\b(old)?(old)?(stable|testing|unstable)\b")
_PROXY = re.compile(r"^(?![ \t]*(//|#)).*(proxy|\bauto-detect)", re.IGNORECASE | re.MULTILINE)
_PASSWORD = re.compile(r"^[^#\n]*://[^/\s]+@", re.MULTILINE)
_POINTS = ("/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/var")
_LEFT_FOLDERS = (
    *("/var/lib/apt/lists", "/var/lib/apt/lists/partial"),
    *("/var/cache/apt", "/var/cache/apt/archives", "/var/cache/apt/archives/partial", "/tmp"),
)
_UDEV_LINKS = (
    "/lib/systemd/system/sysinit.target.wants/systemd-udevd.service",
    "/etc/rcS.d/S[0-9][0-9]*udev",
)


def check_names(facts: Facts) -> Iterator[Finding]:
    """A4: the host name, and /etc/hosts by which `hostname -f` is the fully qualified one."""
    spec = facts.spec
    hint = f"build it again: doit build name={spec.name} replace=yes"
    seen = facts.tree.text("/etc/hostname").strip()
    yield compare("A4", "hostname", expected=spec.short_hostname, seen=seen, hint=hint)
    lines = [line.split("#")[0].split() for line in facts.tree.text("/etc/hosts").splitlines()]
    named = [words for words in lines if len(words) > 1]
    further = [line.split() for line in spec.hosts]
    own = [
        words
        for words in named
        if words not in further and (words[0].startswith("127.") or spec.fqdn in words[1:])
    ]
    fqdn, short = spec.fqdn, spec.short_hostname
    names = [fqdn, short, "localhost"] if fqdn != short else [short, "localhost"]
    yield compare(
        "A4",
        "hosts",
        expected=" ".join(["127.0.0.1", *names]),
        seen="\n".join(" ".join(words) for words in own),
        hint=hint,
    )
    if further:
        missing = [" ".join(words) for words in further if words not in named]
        yield judge("A4", "further hosts", missing, ok=f"all {len(further)}", hint=hint)


def check_machine_id(facts: Facts) -> Iterator[Finding]:
    """C6: machine-id(5) is set and no other guest's."""
    seen = facts.tree.text("/etc/machine-id").strip()
    faults = [] if re.fullmatch(r"[0-9a-f]{32}", seen) else [f"{seen or 'nothing'}"]
    faults += [f"{name} has it, too" for name, other in facts.machine_ids.items() if other == seen]
    yield judge(
        "C6",
        "machine-id",
        faults,
        ok="its own",
        hint="remove machine-id below output/identity/ of one of them and build that one again",
    )


def check_debconf(facts: Facts) -> Iterator[Finding]:
    """A5: the priority stands in debconf's own database."""
    database = facts.tree.text("/var/cache/debconf/config.dat", limit=MOST_FILE).encode()
    found = list(find_stanzas(database, "debconf/priority", field="Name"))
    try:
        seen = read_fields(found[-1]).get("value", "") if found else ""
    except ValueError as error:
        seen = f"a damaged database ({error})"
    expected = facts.spec.debconf_priority
    yield compare("A5", "debconf priority", expected=expected, seen=seen)


def find_gettys(tree: Tree, init: str) -> tuple[str, ...]:
    """inittab's getty lines, or the enabled getty units whose template exists."""
    if init == "sysvinit":
        lines = tree.text("/etc/inittab").splitlines()
        return tuple(line for line in lines if line[:1] not in ("#", "") and "getty" in line)
    folder = "/etc/systemd/system/getty.target.wants"
    return tuple(
        name
        for name in tree.names(folder)
        if tree.has(f"{folder}/{name}")
        and tree.target(f"/etc/systemd/system/{name}") != "/dev/null"
        and tree.target(f"/etc/systemd/system/{name.partition('@')[0]}@.service") != "/dev/null"
    )


def check_console(facts: Facts) -> Iterator[Finding]:
    """A6: exactly one login on the Xen console; a whole disk's are where the kernel's are."""
    device = facts.spec.console
    if facts.spec.is_whole and facts.spec.init == "systemd":
        path = "/usr/lib/systemd/system-generators/systemd-getty-generator"
        masked = facts.tree.target(f"/etc/systemd/system-generators/{PurePosixPath(path).name}")
        faults = [f"masked: {masked}"] if masked else []
        yield judge("A6", f"{device} getty", faults, ok="systemd-getty-generator makes it")
        return
    gettys = [
        line
        for line in find_gettys(facts.tree, facts.spec.init)
        if device in re.split(r"[\s@.]", line)
    ]
    if facts.spec.init == "sysvinit":
        form = rf"\w{{1,4}}:2345:respawn:/sbin/getty (38400|-h -L) {device}( 115200 ansi)?"
        expected = f"1:2345:respawn:/sbin/getty 38400 {device}"
        is_usual = facts.spec.is_whole or re.fullmatch(form, "".join(gettys)) is not None
        sound = len(gettys) == 1 and is_usual
    else:
        expected = f"serial-getty@{device}.service"
        sound = gettys == [expected]
    faults = [] if sound else [" | ".join(gettys) or f"no getty on {device}"]
    hint = "the element xen-console makes it"
    yield judge("A6", f"{device} getty", faults, ok=gettys[0] if sound else expected, hint=hint)
    terminals = facts.tree.text("/etc/securetty").split()
    if terminals:
        refused = [] if device in terminals else [f"{device} is not in /etc/securetty"]
        yield judge("A6", "securetty", refused, ok=device, hint=hint)


def check_devices(facts: Facts) -> Iterator[Finding]:
    """A11: udev starts, the places to mount exist, fstab names what the domain has."""
    tree, spec = facts.tree, facts.spec
    link = _UDEV_LINKS[1 if spec.init == "sysvinit" else 0]
    starts = tree.glob(link)
    masked = tree.target("/etc/systemd/system/systemd-udevd.service") == "/dev/null"
    faults = [] if starts and not masked else ["init does not start it"]
    yield judge("A11", "udev", faults, ok=(starts or [link])[0], hint="see the element xen-udev")
    points = [path for path in _POINTS if path != "/run" or spec.suite_facts.has_run]
    faults = [f"no {path}" for path in points if not tree.has(path)]
    if tree.shown("/tmp") != "1777 0:0":
        faults.append(f"/tmp is {tree.shown('/tmp')}, not 1777 0:0")
    yield judge("A11", "mount points", faults, ok=" ".join(points))
    lines = [line.split() for line in tree.text("/etc/fstab").splitlines() if line[:1] != "#"]
    mounts = {words[1]: words for words in lines if len(words) > 3 and words[2] != "swap"}
    devices = {
        part.fs if part.is_swap else part.mountpoint: name_device(spec, part) for part in spec.parts
    }
    root = " ".join(mounts.get("/", [])[:3])
    yield compare("A11", "fstab root", expected=f"{devices['/']} / {spec.fs}", seen=root)
    swaps = [words[0] for words in lines if len(words) > 3 and words[2] == "swap"]
    expected = devices.get("swap", "none")
    yield compare("A11", "fstab swap", expected=expected, seen=" ".join(swaps) or "none")
    yield judge(
        "A11",
        "/dev/pts, /dev/shm",
        [] if spec.init == "systemd" else _missing_mounts(mounts),
        ok="systemd mounts them" if spec.init == "systemd" else "in fstab",
        hint="without /dev/pts no SSH session gets its terminal; see the element xen-udev",
    )


def _missing_mounts(mounts: dict[str, list[str]]) -> list[str]:
    wanted = {"/dev/pts": "devpts", "/dev/shm": "tmpfs"}
    return [
        f"fstab has no {kind} on {point}"
        for point, kind in wanted.items()
        if mounts.get(point, ["", "", ""])[2] != kind
    ]


def check_place(facts: Facts) -> Iterator[Finding]:
    """A12: time zone; apt's sources name the suite and nothing that moves; no builder's proxy."""
    tree, spec = facts.tree, facts.spec
    zone = tree.resolve("/etc/localtime").removeprefix("/usr/share/zoneinfo/")
    if not tree.has("/etc/localtime"):
        zone = f"{zone}, which is not there"
    yield compare("A12", "localtime", expected=spec.timezone, seen=zone)
    named = tree.text("/etc/timezone").strip()
    yield compare("A12", "timezone", expected=spec.timezone, seen=named)
    suites = read_suites(tree)
    yield judge(
        "A12",
        "apt sources",
        _judge_suites(suites, spec),
        ok=" ".join(suites),
        hint="the element guest-sources writes them; name releases, never stable",
    )
    settings = find_settings(tree)
    hint = "remove them in cleanup.d"
    yield judge("A12", "builder's settings", settings, ok="none", hint=hint)


def read_suites(tree: Tree) -> list[str]:
    """Suites that apt would ask, in one-line and deb822 files, each once."""
    suites: list[str] = []
    lists = ["/etc/apt/sources.list", *tree.glob("/etc/apt/sources.list.d/*.list")]
    for path in lists:
        for line in tree.text(path).splitlines():
            found = re.match(r"\s*deb(?:-src)?\s+(?:\[[^]]*\]\s*)?\S+\s+(\S+)", line)
            suites += [found[1]] if found else []
    for path in tree.glob("/etc/apt/sources.list.d/*.sources"):
        try:
            values = [one.get("suites", "") for one in read_stanzas(tree.text(path))]
        except ValueError as error:
            suites.append(f"{path} is damaged ({error}):")
        else:
            suites += " ".join(values).split()
    return list(dict.fromkeys(suites))


def _judge_suites(suites: list[str], spec: Spec) -> list[str]:
    faults = [f"{suite} moves" for suite in suites if _MOVING.search(suite)]
    if spec.suite not in suites:
        faults.append(f"{spec.suite} is not among {' '.join(suites) or 'nothing'}")
    faults += [
        f"{suite} is of another release"
        for suite in suites
        if not _MOVING.search(suite) and not re.match(rf"{spec.suite}([-/]|$)", suite)
    ]
    return faults


def find_settings(tree: Tree) -> list[str]:
    """Files with what only the build host's apt needs: proxies, passwords of mirrors."""
    settings = ["/etc/apt/apt.conf", *tree.glob("/etc/apt/apt.conf.d/*"), "/etc/environment"]
    found = [path for path in settings if _PROXY.search(tree.text(path))]
    passwords = ["/etc/apt/auth.conf", *tree.glob("/etc/apt/auth.conf.d/*")]
    found += [path for path in passwords if tree.text(path).strip()]
    sources = ["/etc/apt/sources.list", *tree.glob("/etc/apt/sources.list.d/*")]
    return found + [path for path in sources if _PASSWORD.search(tree.text(path))]


def check_leftovers(facts: Facts) -> Iterator[Finding]:
    """B4: nothing that the build needed is left: policies, package lists, downloaded packages."""
    tree = facts.tree
    policies = [path for path in ("/usr/sbin/policy-rc.d", "/sbin/policy-rc.d") if path in tree]
    hint = "while it is there no package starts its service; remove it in cleanup.d"
    yield judge("B4", "policy-rc.d", policies[:1], ok="gone", hint=hint)
    left = [
        f"{folder}/{name}"
        for folder in _LEFT_FOLDERS
        for name in tree.names(folder)
        if f"{folder}/{name}" in tree and tree.nodes[f"{folder}/{name}"].kind != "folder"
    ]
    yield judge("B4", "apt's lists, caches", left, ok="empty", hint="remove them in cleanup.d")


CHECKS = (
    *(check_names, check_machine_id, check_debconf, check_console),
    *(check_devices, check_place, check_leftovers),
)
