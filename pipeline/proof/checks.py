"""The named checks: what the guest must answer, and what it answered. Pure: no process, no file."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pipeline.errors import Finding
from pipeline.proof.replicated_state import read_states
from pipeline.spec import GuestCard, Spec

_ANSWER = re.compile(r"^@@ (?!status)(.+)\n((?:.*\n)*?)@@ status (\d+)$", re.MULTILINE)
# a file system loses some of its disk to its own tables
_ON_THE_LINE = ("WFConnection", "Unconnected", "WFReportParams", "Connected")
SIZE_LOSS, JOURNAL_MIB = 0.06, 64  # inode tables and the like; the journal


@dataclass(frozen=True)
class Answer:
    """What one command in the guest printed, and its exit status."""

    text: str
    status: int


def equal(name: str, expected: str, seen: str) -> Finding:
    """A check that the two are the same."""
    return holds(name, expected, seen, ok=seen == expected)


def holds(name: str, expected: str, seen: str, *, ok: bool) -> Finding:
    """A check whose outcome is known."""
    return Finding("ok" if ok else "error", name, expected=expected, seen=seen)


def unasked(name: str, why: str, expected: str = "asked in the guest") -> Finding:
    """A check that could not be made."""
    return Finding("skipped", name, expected=expected, seen=why)


def read_answers(output: str) -> dict[str, Answer]:
    """The answers in what host/questions printed."""
    text = output.replace("\r", "")
    return {
        match[1]: Answer(match[2].strip("\n"), int(match[3])) for match in _ANSWER.finditer(text)
    }


@dataclass(frozen=True)
class Expectation:
    """What the questions are judged against; `spec` is None for a guest that was not built here.

    `abi` is "" and `host_keys` None when nobody said what they are to be. `is_alone`: in the
    guest's network is nothing but the test host. `firmware` is uefi, or bios for all else.
    """

    spec: Spec | None
    cards: tuple[GuestCard, ...]
    abi: str
    host_keys: frozenset[str] | None
    addresses: tuple[str, ...]
    modules: tuple[str, ...]
    is_alone: bool = True
    firmware: str = "bios"


def judge(answers: dict[str, Answer], expected: Expectation) -> list[Finding]:
    """Every check of the guest's inside, in the order in which a person would ask."""
    found: list[Finding] = []
    rules: list[Rule] = list(_RULES)
    adopted = expected.spec is not None and bool(expected.spec.adopted)
    if expected.spec is not None:
        of_spec = [rule for rule in _SPEC_RULES if rule is not _check_settings or not adopted]
        rules += [partial(rule, expected.spec) for rule in of_spec]
    for rule in rules:
        try:
            found += list(rule(answers, expected))
        except KeyError as missing:
            name = str(missing).strip("'")
            found.append(holds(name, "an answer", "the guest did not answer", ok=False))
    return found


def modules_for(spec: Spec | None) -> tuple[str, ...]:
    """Modules that must load: a packet filter, and drbd where its tools are installed."""
    if spec is None or spec.adopted:
        return ("nf_tables",)
    has_drbd = "drbd-utils" in spec.packages or {"drbd", "drbd-service"} & set(spec.elements)
    drbd = ("drbd",) if has_drbd else ()
    return ("nf_tables", "ip_tables", *drbd)


Answers = dict[str, Answer]
Rule = Callable[[Answers, Expectation], Iterator[Finding]]


def _check_state(answers: Answers, expected: Expectation) -> Iterator[Finding]:
    state = answers["state"].text.splitlines()[-1:] or [""]
    yield equal("system state", "running", state[0])
    yield equal("failed units", "", answers["failed"].text)


def _check_names(spec: Spec, answers: Answers, expected: Expectation) -> Iterator[Finding]:
    if spec.cloud_init and not spec.has_seed:
        yield unasked("hostname -f", "a template has no name")
        return
    yield equal("hostname -f", spec.fqdn, answers["hostname"].text.strip())
    # cloud-init writes them as Debian's installer does
    own, last = ("127.0.1.1", []) if spec.cloud_init else ("127.0.0.1", ["localhost"])
    wanted = " ".join(dict.fromkeys([own, spec.fqdn, spec.short_hostname, *last]))
    lines = [line.split() for line in answers["hosts"].text.splitlines()]
    seen = next((" ".join(dict.fromkeys(line)) for line in lines if line[:1] == [own]), "")
    yield equal("/etc/hosts", wanted, seen)


def _check_network(answers: Answers, expected: Expectation) -> Iterator[Finding]:
    text = answers["addresses"].text
    for address in expected.addresses:
        seen = re.findall(r"inet6? (?:addr:)?([0-9a-f.:]+)", text)
        yield holds("address", address, " ".join(seen), ok=address in seen)
    macs = {mac.lower() for mac in answers["macs"].text.split()}
    for wanted in [card.mac.lower() for card in expected.cards if card.mac]:
        yield holds("MAC address", wanted, " ".join(sorted(macs)), ok=wanted in macs)
    routes = answers["routes"].text
    if any(card.dhcp or card.gateway for card in expected.cards):
        seen_route = next((line for line in routes.splitlines() if "default" in line), routes)
        yield holds("default route", "default via ...", seen_route, ok="default via" in routes)
    if not any(card.dhcp or card.nameservers for card in expected.cards):
        return
    if expected.is_alone:
        name = answers["name-service"]
        ok = name.status == 0 and name.text.startswith("10.77.")
        yield holds("name service", "testhost.proof is known", name.text, ok=ok)
    else:
        why = "outside the test host nobody says which names its network knows"
        yield unasked("name service", why)


def _check_kernel(answers: Answers, expected: Expectation) -> Iterator[Finding]:
    if expected.abi:
        yield equal("uname -r", expected.abi, answers["kernel"].text.strip())
    for module in expected.modules:
        answer = answers[f"module {module}"]
        yield holds(f"modprobe {module}", "it loads", answer.text, ok=answer.status == 0)


def _check_start(answers: Answers, expected: Expectation) -> Iterator[Finding]:
    if expected.firmware == "uefi" or (expected.spec and expected.spec.is_whole):
        yield equal("firmware", expected.firmware, answers["firmware"].text.strip())
    if expected.spec and expected.spec.is_whole:
        words = answers["cmdline"].text.split()
        root = next((word for word in words if word.startswith("root=")), "")
        yield holds("root on the command line", "root=UUID=...", root, ok="=UUID=" in root)


def _check_mounts(answers: Answers, expected: Expectation) -> Iterator[Finding]:
    lines = [line.split() for line in answers["mounts"].text.splitlines()]
    kinds = {words[1]: words[2] for words in lines if len(words) > 3}
    yield equal("/dev/pts", "devpts", kinds.get("/dev/pts", ""))
    yield equal("/dev/shm", "tmpfs", kinds.get("/dev/shm", ""))
    options = next((words[3].split(",") for words in lines if words[1] == "/"), [""])
    yield equal("root is writable", "rw", options[0])


def _check_sizes(spec: Spec, answers: Answers, expected: Expectation) -> Iterator[Finding]:
    size_mib = int(answers["root-size"].text.split()[1]) // 1024
    wanted_mib = spec.size_mib
    ok = wanted_mib * (1 - SIZE_LOSS) - JOURNAL_MIB <= size_mib <= wanted_mib
    yield holds("root file system", f"about {wanted_mib} MiB", f"{size_mib} MiB", ok=ok)
    swaps = [line.split() for line in answers["swaps"].text.splitlines() if line.strip()]
    swap_mib = sum(int(words[2]) for words in swaps) // 1024
    ok = abs(swap_mib - spec.swap_mib) <= 1
    yield holds("swap", f"{spec.swap_mib} MiB", f"{swap_mib} MiB", ok=ok)
    lines = [line.split() for line in answers["mounts"].text.splitlines()]
    mounted = {words[1]: words[2] for words in lines if len(words) > 3}
    for part in spec.parts:
        if part.has_files:
            yield equal(f"disk at {part.mountpoint}", part.fs, mounted.get(part.mountpoint, ""))


def _check_settings(spec: Spec, answers: Answers, expected: Expectation) -> Iterator[Finding]:
    priority = re.search(r"debconf/priority:\s*(\S+)", answers["debconf"].text)
    yield equal("debconf priority", spec.debconf_priority, priority[1] if priority else "")
    zone = answers["zone"].text.split()
    ok = spec.timezone in zone or (bool(zone) and zone[0].endswith(f"/{spec.timezone}"))
    yield holds("time zone", spec.timezone, " ".join(zone), ok=ok)
    sources = answers["sources"].text
    ok = spec.suite in sources and not re.search(r"\b(?:old)?stable\b|\btesting\b", sources)
    yield holds("sources.list", f"names {spec.suite}", sources.partition("\n")[0], ok=ok)


def _check_identity(answers: Answers, expected: Expectation) -> Iterator[Finding]:
    machine_id = answers["machine-id"].text.strip()
    ok = bool(re.fullmatch(r"[0-9a-f]{32}", machine_id))
    yield holds("machine-id", "32 hexadecimal digits", machine_id, ok=ok)
    if expected.host_keys is None:
        return
    lines = answers["host-keys"].text.splitlines()
    seen = {" ".join(line.split()[:2]) for line in lines if line.strip()}
    ok = seen == set(expected.host_keys)
    verdict = "the same" if ok else f"{len(seen & expected.host_keys)} of {len(seen)} the same"
    yield holds("host keys", "those of known_hosts", verdict, ok=ok)


def _check_password(spec: Spec, answers: Answers, expected: Expectation) -> Iterator[Finding]:
    has_password = bool(spec.root_password_file or spec.root_password_hash)
    first = answers["root-password"].text.strip()
    kind = "locked" if first in ("*", "!") else "set" if first == "$" else first or "empty"
    yield equal("root's password", "set" if has_password else "locked", kind)


def _check_replicated(spec: Spec, answers: Answers, expected: Expectation) -> Iterator[Finding]:
    """Up, with a disk; whether the other node is there is not this guest's to say."""
    if not spec.replicated:
        return
    states = read_states(answers["drbd"].text)
    for node in spec.replicated:
        state = states.get(node.minor)
        ok = state is not None and state.has_disk and state.connection in _ON_THE_LINE
        name = f"replicated disk {node.name}"
        yield holds(name, "up, with its disk", str(state or "not up"), ok=ok)


_RULES: tuple[Rule, ...] = (
    _check_state,
    _check_network,
    _check_kernel,
    _check_start,
    _check_mounts,
    _check_identity,
)
_SPEC_RULES: tuple[Callable[[Spec, Answers, Expectation], Iterator[Finding]], ...] = (
    _check_names,
    _check_sizes,
    _check_settings,
    _check_password,
    _check_replicated,
)
