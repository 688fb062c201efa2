"""Proofs on a real dom0: where they are refused, and how a lease is read from what passes."""

import importlib.machinery
import importlib.util
import socket
import struct
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.commands.command_line import read_command_line
from pipeline.errors import EnvironmentFault, UsageError
from pipeline.proof import dom0

MAC = "00:16:3e:01:02:03"


@pytest.fixture
def leases() -> ModuleType:
    path = str(Path(dom0.__file__).with_name("host") / "leases")
    loader = importlib.machinery.SourceFileLoader("leases", path)
    spec = importlib.util.spec_from_loader("leases", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def frame(kind: int, address: str, *options: bytes) -> bytes:
    """Ethernet, IPv4 and UDP around a DHCP message (RFC 2131)."""
    message = bytearray(236)
    message[16:20] = socket.inet_aton(address)
    message[28:34] = bytes.fromhex(MAC.replace(":", ""))
    tail = b"\x63\x82\x53\x63" + bytes((53, 1, kind)) + b"".join(options) + b"\xff"
    udp = struct.pack("!HHHH", 67, 68, 8 + len(message) + len(tail), 0)
    return bytes(12) + b"\x08\x00" + b"\x45" + bytes(19) + udp + bytes(message) + tail


def test_an_answer_names_card_and_address(leases: ModuleType) -> None:
    assert leases.read_message(frame(5, "10.0.0.9")) == (MAC, 5, "10.0.0.9", "*")


def test_a_request_names_the_host(leases: ModuleType) -> None:
    named = frame(3, "0.0.0.0", b"\x00", b"\x0c\x04web1")
    assert leases.read_message(named) == (MAC, 3, "0.0.0.0", "web1")


@pytest.mark.parametrize("cut", [20, 100, 281], ids=str)
def test_half_a_message_is_none(leases: ModuleType, cut: int) -> None:
    assert leases.read_message(frame(5, "10.0.0.9")[:cut]) is None


@pytest.mark.parametrize(
    ("kind", "capabilities", "said"),
    [
        (None, None, "does not run Xen"),
        ("kvm", None, "does not run Xen"),
        ("xen", "", "is a guest of Xen, not its dom0"),
    ],
    ids=["bare machine", "another hypervisor", "a guest"],
)
def test_elsewhere_it_is_refused_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str | None,
    capabilities: str | None,
    said: str,
) -> None:
    for name, content in (("HYPERVISOR", kind), ("CAPABILITIES", capabilities)):
        path = tmp_path / name
        if content is not None:
            path.write_text(f"{content}\n")
        monkeypatch.setattr(dom0, name, path)
    with pytest.raises(EnvironmentFault, match=said):
        dom0.refuse_elsewhere()


def test_a_host_whose_block_scripts_run_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"HYPERVISOR": "xen", "CAPABILITIES": "control_d", "SETTINGS": "run_hotplug_scripts=0"}
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
        monkeypatch.setattr(dom0, name, tmp_path / name)
    monkeypatch.setattr(dom0, "TOOLS", {})
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(EnvironmentFault, match="to udev"):
        dom0.refuse_elsewhere()
    (tmp_path / "SETTINGS").write_text("#run_hotplug_scripts=0\nrun_hotplug_scripts=1\n")
    dom0.refuse_elsewhere()


def test_an_unknown_way_to_prove_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="prove_with: 'vmware' is not one of qemu, xl"):
        read_command_line(["prove", "name=web1", "prove_with=vmware"])
