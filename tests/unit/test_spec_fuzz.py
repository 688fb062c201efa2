"""Nasty values for every key: one clear line, or files that say this value and nothing else.

By the day, so that every run sees others: DOMU_SPEC_VALUES says how many, DOMU_SPEC_DAY=2026-01-31
repeats a day's.
"""

import ast
import datetime
import ipaddress
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pipeline.errors import PipelineError
from pipeline.guest.domains import domain_of
from pipeline.guest.identity import render_fstab, render_hosts
from pipeline.guest.network import network_files
from pipeline.mirror.mirrors import Archive, render_guest_sources
from pipeline.project import Project
from pipeline.spec import Spec, load_guest
from pipeline.spec.domain import without_ahci, xl_version, xm_version
from pipeline.xen.cfg_syntax import read_assignments
from pipeline.xen.keys import check_keys
from pipeline.xen.render import render_libvirt, render_xl, render_xm
from pipeline.xen.values import Unsupported

COUNT = int(os.environ.get("DOMU_SPEC_VALUES", "2500"))
DAY = os.environ.get("DOMU_SPEC_DAY") or datetime.datetime.now(tz=datetime.UTC).date().isoformat()
GUEST = "tiny"
MARK = "INJECTED"

TEXTS = (
    *("", " ", "\t", "\n", "\0", "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "\u202e\u2066", "\ud800"),
    *("'", '"', "\\", "`", "$", "${HOME}", "$(id)", "%s%n", "{{7*7}}", "{% raw %}", "]]>", "<!--"),
    *(f"x\n{MARK}=1", f'"\n{MARK} = 1\n"', f"'\n{MARK} = 1\n'", f"x'; {MARK}", f'x"; {MARK}; "'),
    *(
        f"x, {MARK}=1",
        f"x], {MARK} = [",
        f"</name><{MARK}/>",
        f'" {MARK}="1',
        f"x\r{MARK}",
        "x\x0bz",
    ),
    *(f"a\u2028{MARK}", f"a\x85{MARK}", f"a #{MARK}", f"a | {MARK} & b < c > d ; e", "a&b", "a|b"),
    *"../../etc/shadow .. . / // /etc/../etc/shadow -x --help - ~ ~nosuch/x".split(),
    *(
        "/dev/zero",
        "/dev/../etc/shadow",
        "/dev/sdb1",
        "/dev/sd b",
        "a" * 64,
        "a" * 300,
        "/" + "b" * 300,
    ),
    *(
        "9" * 5000,
        "-1",
        "0",
        "1e9",
        "0x10",
        "1.5",
        "nan",
        "inf",
        "true",
        "yes",
        "None",
        "[]",
        "\u0661",
    ),
    *("4G", "16T", "17T", "0.0000001G", "4 GiB", "1GG", "512", "xvda1", "hda1", "bookworm"),
    *("sid", "etch"),
    *("e\u0301", "\xe4", "\u0430dmin", "web1", "web1.example.org", "web1.example.org."),
    *("1.2.3.4", "_a"),
    *"10.0.0.5/24 10.0.0.5 10.0.0.5/33 0.0.0.0/0 2001:db8::5/64 fe80::1%eth0 ::1 1::/0".split(),
    *"00:16:3E:00:00:01 01:00:5e:00:00:01 00:16:3E:00:00 10Mb/s 1MB/s@20ms 1.5Mb/s 0b/s".split(),
    *("http://a/b", "http://u:p@a/b", "http://[::1", "http://a/?q#f", "file:/x y"),
    *("a:99999", "host", "proxy"),
    *(
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1yc2E= x",
        "-----BEGIN PRIVATE KEY-----",
        'command="x" ssh-rsa A',
    ),
    *("console=ttyS0", "root=/dev/x", "init=/bin/sh", "a,b", "a=b,c=d", "defaults"),
    *("nodev,nosuid", "sw 0 0"),
    *("linux-image-amd64=6.1", "linux-image-amd64=1;x", "/boot/vmlinuz x", "pv", "hvm"),
    *("pvh", "grub", "pygrub"),
    *"vnc en-us fr destroy coredump-restart 4.17 3.2 99.1 $6$aaaaaaaa$bbbbbbbbbbbbbbbb".split(),
)
NUMBERS = (0, 1, -1, 2, 68, 1500, 65535, 65536, 2**31, 2**63, 2**64, 2**70, True, False, 1.5, -0.0)
TOML_ONLY = (
    *("nan", "inf", "1979-05-27", "07:32:00", "{}", "{a = {b = {c = {d = {e = 1}}}}}", "[{}]"),
    *(
        "0x" + "f" * 5000,
        "9" * 5000,
        "[" * 3000 + "]" * 3000,
        "[[[[1]]]]",
        '{name = "x"}',
        "'''a\nb'''",
    ),
)


@dataclass(frozen=True)
class Value:
    """One try: a key, and its value as TOML or as a word of the command line."""

    key: str
    toml: str = ""
    word: str | None = None
    others: str = ""


def as_toml(value: object) -> str:
    """As TOML writes it; what TOML has no way to write goes to the command line only."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {as_toml(one)}' for key, one in value.items())}}}"
    if not isinstance(value, str):
        return str(value)
    escaped = (
        letter if letter.isalnum() and ord(letter) < 128 else f"\\U{ord(letter):08X}"
        for letter in value
    )
    return f'"{"".join(escaped)}"'


OTHERS = (
    *("", "", "", "", 'init = "sysvinit"', 'suite = "noble"', 'suite = "etch"'),
    'type = "hvm"\nvnc = true',
    *('boot = "pygrub"', 'boot = "grub"', 'type = "pvh"', 'clone = "cow"', 'lvm = "VG0"'),
    'format = "vhd"',
    *(
        'domain = "example.org"',
        'xen = "3.2"',
        'address = ["10.0.0.5/24"]',
        'kernel = "/boot/vmlinuz-6.1.0-x"',
    ),
)


def examples() -> dict[str, list[object]]:
    """What the reference names as good values, by key."""
    found: dict[str, list[object]] = {}
    for key, field in Spec.model_fields.items():
        words = [one for one in getattr(field.annotation, "__args__", ()) if isinstance(one, str)]
        found[key] = [*(field.examples or ()), *words]
        if field.annotation is bool:
            found[key] += [True, False]
    return {key: values for key, values in found.items() if values}


GOOD = examples()
LETTERS = " \t\n\r\x00\x1b\x7f\x85\xa0'\"`\\$%&|;<>(){}[]#!?*^~,=:@/.-_\u2028\u202e\u0430\xe40A"
KEYS = sorted(Spec.model_fields)
PART_KEYS = ("name", "size", "fs", "mountpoint", "options", "device", "x")
CARD_KEYS = ("address", "gateway", "bridge", "mac", "vifname", "rate", "mtu", "model", "x")


def spoil(draw: random.Random, good: object) -> object:
    """A good value with a letter put in somewhere, or as it is."""
    if isinstance(good, list):
        return [spoil(draw, one) for one in good]
    if not isinstance(good, str):
        return good
    place = draw.randrange(len(good) + 1)
    return good[:place] + draw.choice(("", "", *LETTERS)) + good[place:]


def draw_value(draw: random.Random, key: str) -> object:
    """A good value that is spoilt, a nasty text in any shape, or a number."""
    which = draw.random()
    if which < 0.5 and key in GOOD:
        return spoil(draw, draw.choice(GOOD[key]))
    if which < 0.6:
        return draw.choice(NUMBERS)
    text = draw.choice(("", "", "web1", "/srv/x", "10.0.0.5", "a=")) + draw.choice(TEXTS)
    return draw.choice((text, text, [text], [text, draw.choice(TEXTS)], {"a": text}))


def make_values(draw: random.Random) -> Iterator[Value]:
    """Values without end; the same for the same seed."""
    while True:
        key, others = draw.choice(KEYS), draw.choice(OTHERS)
        value = draw_value(draw, key)
        if key == "partitions" and draw.random() < 0.8:
            inner = draw.choice(PART_KEYS)
            root = {"name": "root", "size": "1G", "mountpoint": "/"}
            other = {"name": "var", "size": "1G", "mountpoint": "/var"}
            value = [root, other | {inner: draw_value(draw, inner)}]
        elif key == "interfaces" and draw.random() < 0.8:
            inner = draw.choice(CARD_KEYS)
            value = [{inner: draw_value(draw, inner)}]
        others = "" if others.startswith(f"{key} ") else others
        if draw.random() < 0.3 and not isinstance(value, dict | list):
            yield Value(key, word=str(value), others=others)
        elif draw.random() < 0.1:
            yield Value(key, toml=draw.choice(TOML_ONLY), others=others)
        elif "U0000D800" not in as_toml(value):  # TOML has no surrogates
            yield Value(key, toml=as_toml(value), others=others)


def is_one_clear_answer(error: PipelineError) -> bool:
    """Each problem is a line and a hint, none longer than a screen, none that steers one."""
    lines = f"{error.brief}\n{error.details}\n{error.hint}".splitlines()
    return error.exit_code == 2 and all(
        len(line) < 1200 and line.strip() != MARK and line.isprintable() for line in lines
    )


def see_xl(spec: Spec, text: str) -> None:
    assert not check_keys(text, target="xl", xen=xl_version(spec))
    assignments = read_assignments(text)
    assert len({one.key for one in assignments}) == len(assignments)
    assert MARK.lower() not in {one.key for one in assignments}
    assert next(one.value for one in assignments if one.key == "name") == spec.name


def see_xm(spec: Spec, text: str) -> None:
    """xend runs the file as Python: nothing but assignments of constants may be in it."""
    for node in ast.parse(text).body:
        assert isinstance(node, ast.Assign), ast.dump(node)
        ast.literal_eval(node.value)
        assert all(isinstance(one, ast.Name) and one.id.islower() for one in node.targets)
    assert not check_keys(text, target="xm", xen=xm_version(spec))


def see_xml(text: str) -> None:
    for node in ElementTree.fromstring(text).iter():
        assert MARK not in node.tag
        assert MARK not in node.attrib


def see_guest_files(spec: Spec) -> None:
    for line in render_fstab(spec).splitlines():
        fields = line.split()
        assert len(fields) == 6, line
        assert fields[0].startswith("/dev/") or fields[0] in ("proc", "devpts", "tmpfs"), line
    for line in render_hosts(spec).splitlines():
        address, *names = line.split()
        ipaddress.ip_address(address)
        assert names, line
        assert all(re.fullmatch(r"[A-Za-z0-9.-]+", name) for name in names), line
    for path, text in network_files(spec).items():
        for line in filter(None, text.splitlines()):
            if path.endswith(".network"):
                assert re.fullmatch(r"\[(Match|Link|Network|DHCPv4)\]|[A-Za-z]+=[^=]+", line), line
            else:
                words = "auto|iface|address|netmask|gateway|mtu|search|nameserver"
                assert re.fullmatch(rf" *({words}) [A-Za-z0-9 .:_-]+", line), line
    sources = render_guest_sources(
        spec, Archive("http://mirror.test/debian", "http://mirror.test/s")
    )
    for line in filter(None, sources.splitlines()):
        deb822 = "(Types|URIs|Suites|Components|Signed-By|Check-Valid-Until)"
        assert re.fullmatch(rf"{deb822}: \S.*|deb (\[\S+\] )?\S+ \S+ .*", line), line


def see_everything(spec: Spec, project: Project) -> None:
    """Everything that is written from a spec."""
    see_guest_files(spec)
    domain = domain_of(spec, project)
    see_xl(spec, render_xl(domain, xen=xl_version(spec)))
    try:
        see_xm(spec, render_xm(without_ahci(domain), xen=xm_version(spec)))
    except Unsupported as error:
        assert str(error).isprintable(), error
    try:
        see_xml(render_libvirt(without_ahci(domain)))
    except Unsupported as error:
        assert str(error).isprintable(), error


def judge(value: Value, guests: Path, project: Project) -> str:
    """good or refused; whatever else it comes to is a fault of ours."""
    lines = [value.others, f"{value.key} = {value.toml}" if value.toml else ""]
    (guests / f"{GUEST}.toml").write_text("\n".join(filter(None, lines)) + "\n")
    overrides = {} if value.word is None else {value.key: value.word}
    try:
        spec = load_guest(GUEST, guests_dir=guests, overrides=overrides)
    except PipelineError as error:
        assert is_one_clear_answer(error), str(error)[:2000]
        return "refused"
    see_everything(spec, project)
    return "good"


def test_no_value_becomes_more_than_a_value(project: Project) -> None:
    counts: Counter[str] = Counter()
    faults: list[str] = []
    values = make_values(random.Random(DAY))
    for value in (next(values) for _ in range(COUNT)):
        try:
            counts[judge(value, project.guests, project)] += 1
        except Exception as error:  # noqa: BLE001
            faults.append(f"{str(value)[:300]}: {type(error).__name__}: {str(error)[:500]}")
    print(f"spec values of {DAY}: {dict(counts)}")
    assert not faults, f"{len(faults)} of {COUNT} on DOMU_SPEC_DAY={DAY}:\n" + "\n".join(
        faults[:20]
    )
    assert counts["good"] > COUNT / 50
