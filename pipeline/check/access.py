"""Who may enter: root's password, SSH keys, sshd's settings, host keys (A2, A3)."""

import re
from collections.abc import Iterator

from pipeline.check.facts import Facts, compare, judge
from pipeline.check.sshd import find_openings
from pipeline.check.tree import Tree
from pipeline.errors import Finding
from pipeline.guest.host_keys import derive_public_key
from pipeline.guest.identity import authorized_lines
from pipeline.guest.login import find_login
from pipeline.recipe import KNOWN_HOSTS

KEYS = "/root/.ssh/authorized_keys"
_LONGEST_KEY = 16 << 10  # RSA of 16384 bits; what is longer takes minutes to read
_LOCKED = re.compile(r"[!*].*")
_REBUILD = "build it again: doit build name={} replace=yes"


def check_passwords(facts: Facts) -> Iterator[Finding]:
    """A2: root's password is locked or the given one; nobody else has one."""
    spec, fields = facts.spec, _shadow(facts.tree)
    given = spec.root_password_hash
    if given or spec.root_password_file:
        expected = f"a hash that {spec.suite} understands"
    else:
        expected = "locked"
    root = fields.get("root", "")
    seen = describe_password(root, spec.suite_facts.hash_prefixes, spec.suite)
    if given and root != given and seen == expected:
        seen = "another hash than the spec's"
    yield compare("A2", "root password", expected=expected, seen=seen, hint=_rebuild(facts))
    faults = [f"{name} has a password" for name, field in fields.items() if _is_usable(name, field)]
    for entry in _entries(facts.tree.text("/etc/passwd")):
        if len(entry) == 7 and entry[2] == "0" and entry[0] != "root":
            faults.append(f"{entry[0]} is root, too")
        if len(entry) == 7 and entry[1] != "x":
            faults.append(f"{entry[0]} needs no shadow: its field in passwd is {entry[1]!r}")
    yield judge("A2", "other accounts", faults, ok="no passwords", hint="lock them in an element")
    seen = facts.tree.shown("/etc/shadow")
    yield compare("A2", "shadow's mode", expected="640 0:42", seen=seen, hint=_rebuild(facts))


def describe_password(field: str, prefixes: tuple[str, ...], suite: str) -> str:
    """A shadow(5) password field in words that show no hash."""
    if _LOCKED.fullmatch(field):
        return "locked"
    if not field:
        return "empty: anybody may enter"
    if field.startswith(prefixes):
        return f"a hash that {suite} understands"
    return f"a hash that {suite} does not understand"


def check_keys(facts: Facts) -> Iterator[Finding]:
    """A3: exactly the spec's keys open the guest, sshd takes nothing else, and it starts."""
    spec, tree = facts.spec, facts.tree
    expected = authorized_lines(spec)
    seen = [line for line in tree.text(KEYS).splitlines() if line.strip() and line[0] != "#"]
    yield judge(
        "A3",
        "authorized keys",
        _compare_keys(expected, seen),
        ok=f"{len(expected)} key{'' if len(expected) == 1 else 's'}, as in the spec",
        hint=_rebuild(facts),
    )
    wanted = {"/root": "700 0:0"}
    if expected:
        wanted |= {"/root/.ssh": "700 0:0", KEYS: "600 0:0"}
    faults = [
        f"{path} is {tree.shown(path)}, not {mode}"
        for path, mode in wanted.items()
        if tree.shown(path) != mode
    ]
    yield judge("A3", "modes of keys", faults, ok=", ".join(wanted), hint=_rebuild(facts))
    yield from check_sshd(facts)


def check_sshd(facts: Facts) -> Iterator[Finding]:
    """A3: nobody else's keys open the guest, sshd takes nothing but keys, and it starts."""
    spec, tree = facts.spec, facts.tree
    foreign = [
        path
        for path, content in tree.files()
        if "/.ssh/" in path and path != KEYS and content.strip()
    ]
    yield judge("A3", "foreign keys", foreign, ok="none", hint="an element left them: remove them")
    openings = find_openings(tree, spec.suite_facts.openssh)
    yield judge(
        "A3",
        "sshd takes keys only",
        openings,
        ok="no passwords, no other keys",
        hint="the element ssh-server sets it; look at /etc/ssh/sshd_config.d",
    )
    started = find_ssh_start(tree, spec.init)
    yield judge("A3", "sshd starts", [] if started else ["nothing starts it"], ok=started)
    yield find_login(spec, facts.folder / KNOWN_HOSTS).finding


def find_ssh_start(tree: Tree, init: str) -> str:
    """The link by which init starts sshd; "" when there is none."""
    if init == "sysvinit":
        return next(iter(tree.glob("/etc/rc2.d/S[0-9][0-9]ssh")), "")
    wants = "/etc/systemd/system"
    for path in ("multi-user.target.wants/ssh.service", "sockets.target.wants/ssh.socket"):
        unit = path.partition("/")[2]
        if tree.has(f"{wants}/{path}") and tree.target(f"{wants}/{unit}") != "/dev/null":
            return f"{wants}/{path}"
    return ""


def check_host_keys(facts: Facts) -> Iterator[Finding]:
    """A3: the guest shows the keys that known_hosts promises, and keeps their secret halves."""
    tree = facts.tree
    public = tree.glob("/etc/ssh/ssh_host_*_key.pub")
    seen = {" ".join(tree.text(path).split()[:2]) for path in public}
    promised = {
        " ".join(line.split()[1:3]) for line in facts.texts.get(KNOWN_HOSTS, "").splitlines()
    }
    faults = [f"not in known_hosts: {_short(key)}" for key in sorted(seen - promised)]
    faults += [f"not in the guest: {_short(key)}" for key in sorted(promised - seen)]
    if not seen:
        faults.append("the guest has no host key")
    for path in public:
        private = path.removesuffix(".pub")
        derived = _public_half(tree.content(private))
        if derived != " ".join(tree.text(path).split()[:2]):
            faults.append(f"{private} does not belong to its .pub")
    kinds = ", ".join(sorted(key.split()[0] for key in seen if key))
    yield judge("A3", "host keys", faults, ok=kinds, hint=_rebuild(facts))
    faults = [
        f"{path} is {tree.shown(path)}, not 600 0:0"
        for path in tree.glob("/etc/ssh/ssh_host_*_key")
        if tree.shown(path) != "600 0:0"
    ]
    yield judge("C13", "host keys' modes", faults, ok="600 0:0", hint=_rebuild(facts))


def _public_half(private: bytes) -> str:
    """`type base64` of a private host key; "" when it is none."""
    if len(private) > _LONGEST_KEY:
        return ""
    try:
        return derive_public_key(private).decode()
    except (ValueError, TypeError):  # TypeError: it wants a password
        return ""


def _compare_keys(expected: tuple[str, ...], seen: list[str]) -> list[str]:
    faults = [f"foreign: {_short(line)}" for line in seen if line not in expected]
    faults += [f"missing: {_short(line)}" for line in expected if line not in seen]
    return faults


def _short(line: str) -> str:
    """Enough of a public key to know it by: its type, the end of its text, its comment."""
    words = line.split()
    return " ".join(word if len(word) < 30 else f"...{word[-12:]}" for word in words)


def _entries(text: str) -> list[list[str]]:
    return [line.split(":") for line in text.splitlines() if line]


def _shadow(tree: Tree) -> dict[str, str]:
    return {entry[0]: entry[1] for entry in _entries(tree.text("/etc/shadow")) if len(entry) > 1}


def _is_usable(name: str, field: str) -> bool:
    return name != "root" and not _LOCKED.fullmatch(field)


def _rebuild(facts: Facts) -> str:
    return _REBUILD.format(facts.spec.name)


CHECKS = (check_passwords, check_keys, check_host_keys)
