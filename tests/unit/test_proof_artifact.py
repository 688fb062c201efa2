"""What is proven, read from a configuration, and where the test host stands in its networks."""

import os
from pathlib import Path

import pytest

from pipeline.errors import PipelineError, UsageError
from pipeline.proof.artifact import Artifact, read_foreign
from pipeline.proof.handover import bridges_of, nearest_address, neighbours
from pipeline.xen import xl
from pipeline.xen.domain import Domain
from tests.specs import make_spec

XEN_TOOLS = """
bootloader = 'pygrub'
vcpus  = '1'
memory = '256'
root   = '/dev/xvda2 ro'
disk   = [ 'file:{folder}/disk.img,xvda2,w' ]
name   = 'enx'
dhcp   = 'dhcp'
vif    = [ 'mac=00:16:3E:EC:BB:D4' ]
"""


def write(folder: Path, text: str = XEN_TOOLS) -> Path:
    (folder / "disk.img").touch()
    path = folder / "enx.cfg"
    path.write_text(text.format(folder=folder))
    return path


def test_a_configuration_of_xen_tools_is_read_as_it_is(tmp_path: Path) -> None:
    artifact = read_foreign(write(tmp_path), tmp_path / "proofs")

    assert artifact.name == "enx"
    assert artifact.spec is None
    assert artifact.evidence == tmp_path / "proofs" / "enx" / "proof"
    assert [card.device.mac for card in artifact.cards] == ["00:16:3e:ec:bb:d4"]
    assert artifact.cards[0].dhcp
    assert bridges_of(artifact) == ["xenbr0"]
    assert artifact.facts["boot"] == "pygrub"
    assert artifact.known_hosts == artifact.abi == artifact.short_hostname == ""


def test_an_address_in_the_configuration_is_the_guests(tmp_path: Path) -> None:
    text = XEN_TOOLS.replace("'mac=", "'ip=192.0.2.9, mac=")
    artifact = read_foreign(write(tmp_path, text), tmp_path)

    assert [str(address) for address in artifact.cards[0].addresses] == ["192.0.2.9/24"]
    assert neighbours(artifact) == [("xenbr0", "192.0.2.1/24")]


def test_what_is_no_configuration_and_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_foreign(tmp_path / "none.cfg", tmp_path)
    path = write(tmp_path)
    (tmp_path / "disk.img").unlink()
    with pytest.raises(PipelineError, match="disk.img, which does not exist"):
        read_foreign(path, tmp_path)
    os.mkfifo(tmp_path / "disk.img")
    with pytest.raises(PipelineError, match="disk.img, which is neither a file nor a block device"):
        read_foreign(path, tmp_path)
    path.write_text("memory = [\n")
    with pytest.raises(UsageError, match="enx.cfg"):
        read_foreign(path, tmp_path)


def built(**keys: object) -> Artifact:
    spec = make_spec(**keys)
    template = read_domain()
    return Artifact(Path("/x"), Path("/x/web1.cfg"), Path("/x/proof"), template, spec)


def read_domain() -> Domain:
    return xl.parse(
        'name = "web1"\nmemory = 256\nkernel = "/k"\nvif = [ "bridge=br-xen" ]\n', strict=False
    )


def test_the_test_host_is_the_gateway_and_the_name_server_of_a_fixed_address() -> None:
    keys = {"address": ["192.0.2.10/24"], "gateway": "192.0.2.1", "nameservers": ["198.51.100.5"]}
    artifact = built(**keys)
    assert neighbours(artifact) == [("br-xen", "198.51.100.5/32"), ("br-xen", "192.0.2.1/24")]
    assert nearest_address(artifact) == ("br-xen", "192.0.2.1")
    assert nearest_address(built()) == ("br-xen", "10.77.0.1")


def test_the_kernel_inside_a_guest_is_the_one_that_its_manifest_names(tmp_path: Path) -> None:
    spec = make_spec(boot="pygrub")
    (tmp_path / "kernel.json").write_text('{"inside": true}')
    (tmp_path / "manifest").write_text(
        "linux-image-6.1.0-9-amd64 6.1.9-1 amd64\nlinux-image-amd64 6.1.9-1 amd64\n"
    )
    artifact = Artifact(tmp_path, tmp_path / "web1.cfg", tmp_path, read_domain(), spec)
    assert artifact.abi == "6.1.0-9-amd64"
    (tmp_path / "manifest").write_text("bash 5.2 amd64\n")
    assert artifact.abi == ""
