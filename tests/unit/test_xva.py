"""An XVA: what is written is what importers demand, and nothing that breaks a rule is taken."""

import io
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import PipelineError, VerificationError
from pipeline.formats.ova_xml import Machine
from pipeline.formats.xva import BLOCK, Checksum, Source, digest_block, write_xva
from pipeline.formats.xva_reader import read_xva
from tests.xva_import import Imported, Refused, import_xva

MACHINE = Machine(
    name="web1",
    description="a <small> & odd guest",
    uuid="3f1c1f06-61a7-5f9e-9a64-0d5e9f0d6c11",
    memory=256 << 20,
    most_memory=512 << 20,
    vcpus=1,
    most_vcpus=2,
)
Members = list[tuple[str, bytes]]


def make_disk(path: Path, *, size: int, written: tuple[int, ...], seed: int = 1) -> Path:
    """A sparse disk with a few bytes at each of these places."""
    rng = random.Random(seed)
    with open(path, "wb") as stream:
        stream.truncate(size)
        for at in written:
            stream.seek(at)
            stream.write(rng.randbytes(4096))
    return path


def written(disks: list[Path], checksum: Checksum = "sha1", machine: Machine = MACHINE) -> bytes:
    target = io.BytesIO()
    sources = [Source(disk, disk.stem) for disk in disks]
    write_xva(sources, target, machine, epoch=1_700_000_000, checksum=checksum)
    return target.getvalue()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Written at its beginning, within, and at its end; 11 MiB and a half."""
    size = 11 * BLOCK + BLOCK // 2
    return make_disk(tmp_path / "disk.img", size=size, written=(0, 5 * BLOCK + 7, size - 4096))


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Smaller than a block, as a disk with a seed may be."""
    return make_disk(tmp_path / "seed.img", size=300 << 10, written=(512,), seed=2)


@pytest.mark.parametrize("checksum", ["sha1", "xxhash"])
def test_an_importer_gets_the_same_disks_back(
    disk: Path, second: Path, tmp_path: Path, checksum: Checksum
) -> None:
    content = written([disk, second], checksum)

    imported = import_xva(content)
    ours = read_xva(io.BytesIO(content), tmp_path)

    assert list(imported.disks.values()) == [disk.read_bytes(), second.read_bytes()]
    files = [tmp_path / one.file for one in ours.disks]
    assert [file.read_bytes() for file in files] == list(imported.disks.values())
    assert files[0].stat().st_blocks * 512 < disk.stat().st_size  # sparse
    assert [(one.place, one.label) for one in ours.disks] == [("0", "disk"), ("1", "seed")]
    assert (ours.name, ours.memory, ours.vcpus, ours.kind) == ("web1", 512 << 20, 2, "hvm")
    assert imported.machine["name_description"] == "a <small> & odd guest"


def test_only_the_first_the_last_and_what_is_not_zero_is_written(tmp_path: Path) -> None:
    empty = make_disk(tmp_path / "disk.img", size=64 * BLOCK, written=())
    with open(empty, "r+b") as stream:
        stream.seek(9 * BLOCK)
        stream.write(bytes(2 * BLOCK))  # data that is zero: no hole

    names = [name for name, _ in _members(written([empty]))]

    blocks = ["Ref:002/00000000", "Ref:002/00000063"]
    assert names == ["ova.xml", *(name + end for name in blocks for end in ("", ".checksum"))]


def test_the_same_disk_gives_the_same_bytes_on_any_day(disk: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other" / "disk.img"
    copy.parent.mkdir()
    copy.write_bytes(disk.read_bytes())  # no holes, another time

    assert written([copy]) == written([disk])


def test_a_template_and_a_firmware_are_told(disk: Path) -> None:
    machine = Machine(**{**vars(MACHINE), "is_template": True, "firmware": "uefi"})

    told = import_xva(written([disk], machine=machine)).machine

    assert told["is_a_template"] is True
    assert told["HVM_boot_params"] == {"firmware": "uefi", "order": "cd"}
    assert not told["is_default_template"]


def test_sixteen_disks_keep_their_order(tmp_path: Path) -> None:
    disks = [make_disk(tmp_path / f"{n}.img", size=BLOCK, written=(0,), seed=n) for n in range(16)]

    imported = import_xva(written(disks))

    assert list(imported.disks.values()) == [disk.read_bytes() for disk in disks]
    with pytest.raises(PipelineError, match="16 at most"):
        written([*disks, disks[0]])


def test_a_first_disk_that_is_no_block_long_is_refused(second: Path) -> None:
    with pytest.raises(PipelineError, match="1 MiB at least"):
        written([second])


def _members(content: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = []
        for entry in tar:
            stream = tar.extractfile(entry)
            assert stream is not None
            found.append((entry.name, stream.read()))
    return found


def _pack(members: Members) -> bytes:
    """The same tar again, with an end."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if name.endswith("/link"):
                entry.type, entry.size = tarfile.SYMTYPE, 0
            tar.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def _field(name: str, told: str, other: str) -> Callable[[Members], Members]:
    """Another value of the first field of that name in ova.xml; "" as `told` takes it out."""

    def change(members: Members) -> Members:
        pattern = f"<member><name>{name}</name><value>{told or '.*?'}</value></member>"
        again = f"<member><name>{name}</name><value>{other}</value></member>" if told else ""
        return _text(pattern, again)(members)

    return change


def _text(pattern: str, other: str) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        text, count = re.subn(pattern, other, members[0][1].decode(), count=1)
        assert count == 1, pattern
        return [(members[0][0], text.encode()), *members[1:]]

    return change


def _without(*names: str) -> Callable[[Members], Members]:
    return lambda members: [one for one in members if one[0] not in names]


def _renamed(old: str, new: str) -> Callable[[Members], Members]:
    return lambda members: [(name.replace(old, new), data) for name, data in members]


def _block(name: str, data: bytes) -> Members:
    return [(name, data), (f"{name}.checksum", digest_block(data, ".checksum").encode())]


def _exchanged(name: str, data: bytes) -> Callable[[Members], Members]:
    """A block with other bytes and their right checksum."""
    new = dict(_block(name, data))
    return lambda members: [(one, new.get(one, content)) for one, content in members]


def _wrong(name: str, data: bytes) -> Callable[[Members], Members]:
    return lambda members: [(one, data if one == name else old) for one, old in members]


_FIRST, _MIDDLE, _LAST = (f"Ref:002/{number:08d}" for number in (0, 5, 11))
_SUM = ".checksum"
_CARD = (
    "<value><struct><member><name>class</name><value>VIF</value></member><member><name>id</name>"
    "<value>Ref:090</value></member><member><name>snapshot</name><value><struct></struct></value>"
    "</member></struct></value></data></array></value></member></struct></value>\n"
)
_ENDING = "</data></array></value></member></struct></value>\n$"
_NOWHERE, _BEHIND = "reference leads nowhere", "Ref:002/00000012"
_FEWER = _renamed("/00000005", "/0000005")
# name of the fault: the rule that it breaks, what our own reader of foreign files says ("": it is
# no fault for a file that somebody else exported), and the change
FAULTS: dict[str, tuple[str, str, Callable[[Members], Members]]] = {
    "ova.xml last": ("ova.xml is not first", "begin", lambda all: [*all[1:], all[0]]),
    "no ova.xml": ("ova.xml is not first", "begin", lambda all: all[1:]),
    "torn XML": ("no value of XML-RPC", "no XML", _text("</struct></value>\n$", "")),
    "an older export": ("version", "export_vsn", _field("export_vsn", "2", "0")),
    "no name": ("field missing", "", _field("name_label", "", "")),
    "no virtual_size": ("field missing", "no number", _field("virtual_size", "", "")),
    "an SR that is not there": (_NOWHERE, "is not there", _field("SR", "Ref:001", "Ref:077")),
    "a VDI that is not there": (_NOWHERE, "is not there", _field("VDI", "Ref:002", "Ref:077")),
    "a card": ("a network or card", "", _text(_ENDING, _CARD)),
    "a CD drive": ("a CD drive", "no disk", _field("type", "Disk", "CD")),
    "drives from 1 on": ("userdevice", "", _field("userdevice", "0", "1")),
    "a PV guest": ("no HVM", "", _field("HVM_boot_policy", "BIOS order", "")),
    "memory": ("memory", "", _field("memory_dynamic_max", "268435456", "968435456")),
    "refs of two lengths": (
        "reference begins with another",
        "",
        _field("id", "Ref:003", "Ref:0021"),
    ),
    "no first block": ("first block missing", "first block", _without(_FIRST, _FIRST + _SUM)),
    "a short first one": ("first block is no MiB", "first block", _exchanged(_FIRST, bytes(4096))),
    "no last block": ("last block missing", "last block", _without(_LAST, _LAST + _SUM)),
    "a block too many": (
        "belongs to no disk",
        "belongs to no disk",
        lambda all: [*all, *_block(_BEHIND, bytes(BLOCK))],
    ),
    "a last block that is too long": ("behind the end", "end", _exchanged(_LAST, bytes(BLOCK))),
    "numbers that fall": ("numbers do not rise", "do not rise", lambda all: [*all[:5], *all[3:]]),
    "a name of 7 digits": ("name of a block", "", _FEWER),
    "no number": ("name of a block", "expected", _renamed("/00000005", "/0000000x")),
    "another disk's": ("block of another disk", "expected", _renamed(_MIDDLE, "Ref:009/00000005")),
    "another byte": ("checksum", "checksum is another", _wrong(_MIDDLE, b"x" * BLOCK)),
    "no checksum": ("checksum missing", "expected", _without(_MIDDLE + _SUM)),
    "MD5": ("checksum missing", "expected", _renamed(_MIDDLE + _SUM, f"{_MIDDLE}.md5")),
    "a link": ("no plain file", "no plain file", lambda all: [*all, ("Ref:002/link", b"")]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_refused_by_its_name(disk: Path, tmp_path: Path, fault: str) -> None:
    rule, ours, change = FAULTS[fault]
    content = _pack(change(_members(written([disk]))))

    with pytest.raises(Refused) as refused:
        import_xva(content)
    assert refused.value.rule == rule
    if ours:
        with pytest.raises(VerificationError, match=ours):
            read_xva(io.BytesIO(content), tmp_path)


@pytest.mark.parametrize("cut", [1, 512, 700_000, 3 << 20])
def test_a_file_that_ends_early_is_refused(disk: Path, tmp_path: Path, cut: int) -> None:
    content = written([disk])[:-cut]

    with pytest.raises(Refused, match="cut short|last block missing"):
        import_xva(content)
    with pytest.raises(VerificationError, match="cut short"):
        read_xva(io.BytesIO(content), tmp_path)


def test_upper_case_is_demanded_of_one_checksum_and_lower_of_the_other(disk: Path) -> None:
    for checksum in ("sha1", "xxhash"):
        members = _members(written([disk], checksum))
        assert isinstance(import_xva(_pack(members)), Imported)
        swapped = [(n, d.swapcase() if "." in n[-9:] and n != "ova.xml" else d) for n, d in members]

        with pytest.raises(Refused, match="checksum"):
            import_xva(_pack(swapped))


def test_blocks_of_no_bytes_keep_the_place(disk: Path, tmp_path: Path) -> None:
    """xapi writes one where it had nothing to send for five seconds."""
    members = _members(written([disk]))
    at = next(index for index, (name, _) in enumerate(members) if name == _MIDDLE)
    # what follows an empty block has the number after it, and lies where the empty one began
    shifted = [
        (re.sub(r"(\d{8})", lambda m: f"{int(m[1]) + 1:08d}", n), d) for n, d in members[at:]
    ]
    content = _pack([*members[:at], *_block("Ref:002/00000003", b""), *shifted])

    assert import_xva(content).disks["Ref:002"] == disk.read_bytes()
    assert read_xva(io.BytesIO(content), tmp_path).disks[0].size == disk.stat().st_size
    assert (tmp_path / "disk0.raw").read_bytes() == disk.read_bytes()


def test_entities_of_a_description_are_not_expanded(disk: Path) -> None:
    members = _members(written([disk]))
    bomb = b'<!DOCTYPE v [<!ENTITY a "aaaa">]>' + members[0][1].partition(b"\n")[2]

    with pytest.raises(VerificationError, match="declaration"):
        read_xva(io.BytesIO(_pack([("ova.xml", bomb), *members[1:]])), None)
