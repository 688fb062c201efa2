"""An OVA that strangers made: what is taken, what is refused, before anything is written."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.formats.ova_reader import read_descriptor, read_ova

DISK = b"KDMV" + bytes(3000)
_OVF = """<?xml version="1.0"?>
<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="urn:rasd">
 <ovf:References>{files}</ovf:References>
 <ovf:DiskSection><ovf:Info/>{disks}</ovf:DiskSection>
 {systems}
</ovf:Envelope>"""
_FILE = '<ovf:File ovf:id="f{0}" ovf:href="{1}" {2}/>'
_DISK = '<ovf:Disk ovf:diskId="d{0}" ovf:fileRef="f{0}" ovf:capacity="1"/>'
_ITEM = (
    "<ovf:Item><rasd:HostResource>{0}</rasd:HostResource>"
    "<rasd:ResourceType>17</rasd:ResourceType></ovf:Item>"
)


def system(*resources: str) -> str:
    items = "".join(_ITEM.format(resource) for resource in resources)
    return f'<ovf:VirtualSystem ovf:id="m"><ovf:Name>web</ovf:Name>{items}</ovf:VirtualSystem>'


def ovf(
    *,
    more: str = "",
    href: str = "m.vmdk",
    systems: str = system("ovf:/disk/d1"),
    both: bool = False,
) -> bytes:
    files, disks = _FILE.format(1, href, more), _DISK.format(1)
    if both:
        files, disks = files + _FILE.format(2, "n.vmdk", ""), disks + _DISK.format(2)
    return _OVF.format(files=files, disks=disks, systems=systems).encode()


def summed(files: Mapping[str, bytes], algorithm: str = "sha256") -> bytes:
    lines = [
        f"{algorithm.upper()}({name})= {hashlib.new(algorithm, content).hexdigest()}\n"
        for name, content in files.items()
    ]
    return "".join(lines).encode()


def packed(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("place", ["second", "last"])
def test_the_first_disk_is_taken_as_its_manifest_says(
    tmp_path: Path, algorithm: str, place: str
) -> None:
    files = {"m.ovf": ovf(both=True, systems=system("ovf:/disk/d2", "/disk/d1")), "n.vmdk": DISK}
    manifest = {"m.mf": summed(files, algorithm)}
    whole = {**files, **manifest} if place == "last" else {**dict([*files.items()][:1]), **manifest}
    whole |= {**files, "m.vmdk": b"other"}
    said = read_ova(io.BytesIO(packed(whole)), tmp_path / "disk")
    assert said == {"name": "web", "disk": "n.vmdk", "summed": True, "others": ["m.vmdk"]}
    assert (tmp_path / "disk").read_bytes() == DISK


def test_without_a_manifest_it_is_said_so(tmp_path: Path) -> None:
    said = read_ova(io.BytesIO(packed({"m.ovf": ovf(), "m.vmdk": DISK})), tmp_path / "disk")
    assert not said["summed"]


def test_a_disk_may_be_named_by_its_file_or_by_nothing() -> None:
    assert read_descriptor(ovf(systems=system("ovf:/file/f1"))).disks == ("m.vmdk",)
    assert read_descriptor(ovf(systems=system())).disks == ("m.vmdk",)


_BOMB = b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ovf().replace(b"<ovf:Env", _BOMB + b"<ovf:Env", 1), "a document type"),
        (ovf()[:-20], "no XML"),
        (b"\xff\xfe\0", "no XML"),
        (b"<a/>", "no Envelope"),
        (ovf(systems=""), "it holds no machines"),
        (ovf(systems=system("ovf:/disk/d1") * 2), "it holds 2 machines"),
        (ovf(systems=system("ovf:/disk/d9")), "no disk of its machine"),
        (ovf(more='ovf:compression="gzip"'), "compressed as a whole or in pieces"),
        (ovf(more='ovf:chunkSize="5"'), "compressed as a whole or in pieces"),
        (ovf().replace(b"<ovf:Info/>", b"<a/>" * 100_001), "more than 100000 elements"),
    ],
    ids="entities cut bytes other none two gone gzip pieces many".split(),
)
def test_a_descriptor_that_cannot_be_taken_is_one_error(content: bytes, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        read_descriptor(content)


def _link(name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/shadow"
        archive.addfile(info)
    return stream.getvalue()


_GOOD = {"m.ovf": ovf(), "m.vmdk": DISK}
_SUMS = summed(_GOOD)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (packed({"m.vmdk": DISK, "m.ovf": ovf()}), "its first file is no .ovf"),
        (packed({"m.ovf": ovf()}), "'m.vmdk', the disk in m.ovf, is not in it"),
        (packed({"m.ovf": ovf(href="../../etc/shadow")}), "is not in it"),
        (packed(_GOOD)[:1536], "no whole tar|is not in it|cut short"),
        (packed(_GOOD)[:4100], "no whole tar|cut short"),
        (_link("m.ovf"), "no OVA has such a member"),
        (packed({"m.ovf": ovf()}) + packed({"m.ovf": ovf()}), "is not in it"),
        (packed({**_GOOD, "m.mf": _SUMS.replace(b"= ", b"= 0")}), "not what its manifest says"),
        (packed({**_GOOD, "m.vmdk": DISK + b"x", "m.mf": _SUMS}), "m.vmdk is not what its manif"),
        (packed({**_GOOD, "m.ovf": ovf() + b"\n", "m.mf": _SUMS}), "m.ovf is not what its manif"),
        (packed({**_GOOD, "m.mf": b"MD5(m.ovf)= 00\n"}), "its manifest is damaged"),
        (packed({"m.ovf": ovf(more='ovf:size="7"'), "m.vmdk": DISK}), "not the 7 of m.ovf"),
        (packed({"m.ovf": bytes(5 << 20)}), "larger than 4 MiB"),
        (packed({f"{number}.ovf": b"" for number in range(1001)}), "more than 1000 files"),
        (b"", "no whole tar|no .ovf"),
    ],
    ids=(
        "order missing outside empty cut link again sum disk ovf md5 size large many nothing"
    ).split(),
)
def test_an_archive_that_cannot_be_taken_is_one_error(
    tmp_path: Path, content: bytes, said: str
) -> None:
    with pytest.raises(PipelineError, match=said):
        read_ova(io.BytesIO(content), tmp_path / "disk")
