"""UEFI under Xen and the ways in which one whole disk is started: refused, rendered, chosen."""

import ipaddress
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.dom0 import kernels
from pipeline.dom0.configuration import moved_domain
from pipeline.dom0.layout import Layout
from pipeline.errors import EnvironmentFault, PipelineError, UsageError, VerificationError
from pipeline.foreign.import_file import import_text
from pipeline.foreign.import_spec import Host
from pipeline.guest.configurations import render_all
from pipeline.guest.domains import domain_of
from pipeline.mirror.source_package import read_source
from pipeline.project import Project
from pipeline.proof import boots, plain_machine
from pipeline.proof.artifact import Artifact
from pipeline.proof.boots import Plan, choose_boots, own_boot, under_xen
from pipeline.proof.plain_machine import qemu_argv
from pipeline.proof.session import Asked
from pipeline.spec import Spec
from pipeline.spec.rules import find_clashes
from pipeline.stages import firmware
from pipeline.stages.firmware import require_xen
from pipeline.xen import libvirt, xl
from pipeline.xen.boot import Boot, Firmware, Grub
from pipeline.xen.domain import Disk, Domain
from pipeline.xen.render import render_libvirt, render_xl
from pipeline.xen.values import Unsupported
from tests.specs import make_spec

PROJECT = Project(Path("/srv"), Path("/srv/output"), Path("/srv/guests"))
UEFI = {"disk": "whole", "boot": "firmware", "firmware": "uefi"}
OWN = "/srv/output/guests/web1/OVMF.fd"


def spec(**keys: object) -> Spec:
    return make_spec(name="web1", **keys)


def domain(kind: str, boot: Boot) -> Domain:
    name = "hda" if kind == "hvm" else "xvda"
    disk = Disk(target="/srv/disk.img", vdev=name)
    return Domain(name="web1", type=kind, memory_mib=256, vcpus=1, boot=boot, disks=(disk,))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"disk": "whole", "boot": "grub", "firmware": "uefi"}, "firmware: a guest with boot = 'g"),
        (
            {**UEFI, "type": "hvm", "boot_order": "c"},
            "boot_order: xl gives UEFI no order: it start",
        ),
        ({**UEFI, "type": "hvm", "suite": "squeeze"}, "firmware: squeeze's GRUB has no loader"),
    ],
)
def test_what_uefi_cannot_be_is_refused(keys: dict[str, object], said: str) -> None:
    clashes = [f"{clash.subject}: {clash.message}" for clash in find_clashes(spec(**keys))]
    assert [clash[: len(said)] for clash in clashes] == [said]


@pytest.mark.parametrize("word", ["secureboot", "uefi-secure", "nvram"])
def test_secure_boot_is_refused_with_its_reason(word: str) -> None:
    with pytest.raises(ValueError, match="keeps no UEFI variables"):
        spec(**{**UEFI, "firmware": word})


@pytest.mark.parametrize("kind", ["hvm", "pvh"])
def test_the_configuration_names_the_firmware_beside_the_disk(kind: str) -> None:
    made = dict(render_all(spec(**UEFI, type=kind), PROJECT))

    text = made["web1.cfg"]
    key = "bios_path_override" if kind == "hvm" else "kernel"
    assert f'{key} = "{OWN}"' in text
    assert ('bios = "ovmf"' in text) == (kind == "hvm")
    assert xl.parse(text) == domain_of(spec(**UEFI, type=kind), PROJECT)
    assert f">{OWN}</{'loader' if kind == 'hvm' else 'kernel'}>" in made["web1.xml"]
    reason = "firmware uefi" if kind == "hvm" else "type pvh"
    assert made["web1.xm.unsupported"].startswith(reason)


@pytest.mark.parametrize(
    ("kind", "boot"),
    [
        ("hvm", Firmware("uefi", path="/srv/OVMF.fd")),
        ("hvm", Firmware("uefi")),
        ("pvh", Firmware("uefi", path="/srv/OVMF.fd")),
    ],
)
def test_what_is_rendered_is_read_back(kind: str, boot: Boot) -> None:
    guest = domain(kind, boot)
    assert xl.parse(render_xl(guest, xen="4.17")).boot == boot
    assert libvirt.parse(render_libvirt(guest)).boot == boot


def test_firmware_in_a_file_is_uefis_and_not_every_xen_takes_it() -> None:
    with pytest.raises(ValueError, match="a BIOS is the host's own"):
        Firmware("bios", path="/srv/OVMF.fd")
    with pytest.raises(ValueError, match="no firmware but UEFI's, in a file"):
        domain("pvh", Firmware("uefi"))
    with pytest.raises(Unsupported, match="does not know bios_path_override="):
        render_xl(domain("hvm", Firmware("uefi", path="/srv/OVMF.fd")), xen="4.8")


def test_an_imported_guest_with_uefi_says_so() -> None:
    text = 'name = "web1"\ntype = "hvm"\nbios = "ovmf"\nbios_path_override = "/srv/OVMF.fd"\n'
    text += 'disk = ["/srv/disk.img,raw,hda,rw"]\n'
    made = import_text(text, Path("web1.cfg"), Path("guests"), suite="bookworm", host=Host())
    assert made.spec.spec.firmware == "uefi"
    lost = [line for line in made.findings if line.code == "cannot be said"]
    assert not [line for line in lost if line.subject in ("bios", "bios_path_override")]


def test_the_ways_to_start_a_disk_are_chosen_and_refused() -> None:
    whole = spec(disk="whole", boot="grub")
    assert choose_boots(whole, ["qemu", "own"]) == ("pvh", "qemu")
    assert choose_boots(whole, ["all"]) == boots.BOOTS
    old = spec(disk="whole", boot="grub", arch="i386")
    assert choose_boots(old, ["all"]) == ("pvh", "hvm", "qemu")
    assert own_boot(spec(**UEFI, type="hvm")) == "hvm-uefi"
    with pytest.raises(UsageError, match="no boot loader of its own on its disk"):
        choose_boots(spec(), ["qemu"])


def plan(tmp_path: Path, guest: Spec) -> Plan:
    made = domain_of(guest, PROJECT)
    artifact = Artifact(tmp_path, tmp_path / "web1.cfg", tmp_path / "proof", made, guest)
    return Plan(artifact, guest, Asked(), None, (), lambda: Path("/srv/store/OVMF.fd"))


@pytest.mark.parametrize(
    ("boot", "kind", "way"),
    [
        ("pvh", "pvh", Grub("/usr/lib/grub-xen/grub-i386-xen_pvh.bin")),
        ("hvm", "hvm", Firmware(hdtype="ahci")),
        ("hvm-uefi", "hvm", Firmware("uefi", hdtype="ahci", path="/srv/store/OVMF.fd")),
        ("pvh-uefi", "pvh", Firmware("uefi", path="/srv/store/OVMF.fd")),
    ],
)
def test_one_disk_is_started_in_other_ways(tmp_path: Path, boot: str, kind: str, way: Boot) -> None:
    told = under_xen(plan(tmp_path, spec(disk="whole", boot="grub")), boot, tmp_path)
    assert (told.domain.type, told.domain.boot) == (kind, way)
    assert [disk.vdev for disk in told.domain.disks] == ["hda" if kind == "hvm" else "xvda"]
    assert told.firmware == ("uefi" if "uefi" in boot else "bios")
    assert (told.configuration.name == "web1.cfg") == (boot == "pvh")


def test_plain_qemu_has_the_guests_disk_card_and_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"disk": "whole", "boot": "grub", "address": ["192.0.2.7/24"], "gateway": "192.0.2.1"}
    artifact = replace(
        plan(tmp_path, spec(**keys)).artifact,
        domain=replace(domain("pvh", Grub("/usr/lib/grub-xen/grub-i386-xen_pvh.bin")), vcpus=2),
    )
    overlays = [tmp_path / "disk0.qcow2"]
    monkeypatch.setattr(plain_machine, "OVMF", (tmp_path / "CODE", tmp_path / "VARS"))

    words = " ".join(qemu_argv(artifact, overlays, tmp_path, is_uefi=False, accelerator="tcg"))
    assert "net=192.0.2.0/24,host=192.0.2.1" in words
    assert "hostfwd=tcp:127.0.0.1:22-192.0.2.7:22" in words
    assert "virtio-blk-pci,drive=disk0" in words
    with pytest.raises(EnvironmentFault, match="qemu-uefi: .* is not here"):
        qemu_argv(artifact, overlays, tmp_path, is_uefi=True, accelerator="tcg")
    for path in plain_machine.OVMF:
        path.write_bytes(b"fd")
    words = " ".join(qemu_argv(artifact, overlays, tmp_path, is_uefi=True, accelerator="kvm"))
    assert "readonly=on,file=" in words
    assert (tmp_path / "variables.fd").read_bytes() == b"fd"


STANZA = """\
Package: edk2
Version: 2022.11-6+deb12u2
Directory: pool/main/e/edk2
Checksums-Sha256:
 {sha} 2104 edk2_2022.11-6+deb12u2.dsc
 {sha} 16710140 edk2_2022.11.orig.tar.xz
"""


def test_a_source_package_is_read_and_what_makes_no_sense_is_refused() -> None:
    text = STANZA.format(sha="a" * 64)
    package = read_source("http://mirror", text.encode())
    assert package.version == "2022.11-6+deb12u2"
    assert package.files[1].url == "http://mirror/pool/main/e/edk2/edk2_2022.11.orig.tar.xz"
    for bad in (
        text.replace("pool/main", "../main"),
        text.replace("edk2_2022.11.orig", "../orig"),
        text.replace("2104", "0"),
        text.replace("Version: ", "Version: ;"),
        text.replace("Checksums-Sha256", "Files"),
    ):
        with pytest.raises(VerificationError, match="an index of sources"):
            read_source("http://mirror", bad.encode())


def test_firmware_has_a_folder_among_the_kernels_of_a_host(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    source = tmp_path / "OVMF.fd"
    source.write_bytes(b"\x7fELF")
    with kernels.placing_kernels(layout):
        placed = kernels.place_firmware(layout, source)
        assert (placed / "OVMF.fd").read_bytes() == b"\x7fELF"
        (placed / "OVMF.fd").write_bytes(b"damaged")
        assert kernels.place_firmware(layout, source) == placed
        assert (placed / "OVMF.fd").read_bytes() == b"\x7fELF"
        guest = domain("pvh", Firmware("uefi", path="/srv/OVMF.fd"))
        boot = moved_domain(guest, {}, None, placed).boot
        assert boot == Firmware("uefi", path=str(placed / "OVMF.fd"))
    assert not placed.exists(), "no guest needs it"


def test_the_network_of_a_guest_without_a_fixed_address_is_qemus_own() -> None:
    card = spec(disk="whole", boot="grub").cards[0]
    assert plain_machine.find_fixed(card) is None
    fixed = replace(card, dhcp=False, addresses=(ipaddress.ip_interface("192.0.2.7/24"),))
    assert str(plain_machine.find_fixed(fixed)) == "192.0.2.7/24"


def test_a_firmware_without_xens_entry_is_no_firmware_for_xen(tmp_path: Path) -> None:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(bytes(16))
    with pytest.raises(PipelineError, match="without Xen's entry"):
        require_xen(path)


def test_each_file_that_the_firmware_is_made_by_is_in_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = shutil.copytree(firmware.RECIPE, tmp_path / "ovmf")
    monkeypatch.setattr(firmware, "RECIPE", recipe)
    own = firmware.own_spec(spec())
    before = firmware.STAGE.inputs(own, PROJECT)
    for path in recipe.iterdir():
        content = path.read_bytes()
        path.write_bytes(content + b"#")
        assert firmware.STAGE.inputs(own, PROJECT) != before, path.name
        path.write_bytes(content)
    assert firmware.STAGE.inputs(own, PROJECT) == before
