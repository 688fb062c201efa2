"""Reading a guest's answers and judging them."""

from dataclasses import replace

from pipeline.errors import Finding
from pipeline.proof.causes import Seen, find_host_fault, is_guest_lost, likely_causes
from pipeline.proof.checks import Answer, Expectation, judge, modules_for, read_answers
from tests.specs import make_spec

KEY = "ssh-ed25519 AAAA"
ANSWERS = {
    "state": "running",
    "failed": "",
    "hostname": "web1.example.org",
    "hosts": "127.0.0.1  web1.example.org web1 localhost\n::1 localhost",
    "addresses": "2: enX0    inet 10.77.0.20/24 brd 10.77.0.255 scope global enX0",
    "routes": "default via 10.77.0.1 dev enX0",
    "macs": "00:00:00:00:00:00\n00:16:3e:01:02:03",
    "kernel": "6.1.0-1-cloud-amd64",
    "module nf_tables": "",
    "module ip_tables": "",
    "mounts": "/dev/xvda1 / ext4 rw,relatime 0 0\n"
    "devpts /dev/pts devpts rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0",
    "root-size": "/dev/xvda1 4008000 600000 3300000 16% /",
    "swaps": "/dev/xvda2 partition 524284 0 -2",
    "debconf": "  debconf/frontend: Dialog\n* debconf/priority: medium",
    "zone": "/usr/share/zoneinfo/Etc/UTC\nEtc/UTC",
    "sources": "deb http://mirror.example.org/debian bookworm main",
    "machine-id": "0123456789abcdef0123456789abcdef",
    "host-keys": f"{KEY} root",
    "root-password": "*",
    "name-service": "10.77.0.1 testhost.proof",
}


def expectation(**changes: object) -> Expectation:
    spec = make_spec(hostname="web1.example.org", mac="00:16:3E:01:02:03")
    keys = frozenset([KEY])
    modules = modules_for(spec)
    wanted = Expectation(spec, spec.cards, "6.1.0-1-cloud-amd64", keys, ("10.77.0.20",), modules)
    return replace(wanted, **changes)  # type: ignore[arg-type]


def judged(**changes: str) -> dict[str, Finding]:
    texts = {**ANSWERS, **{name.replace("_", "-"): text for name, text in changes.items()}}
    answers = {name: Answer(text, 0) for name, text in texts.items()}
    return {check.subject: check for check in judge(answers, expectation())}


def test_a_sound_guest_holds_every_check() -> None:
    assert [check for check in judged().values() if check.level != "ok"] == []


def test_on_a_real_dom0_the_name_service_is_not_asked_and_the_reason_is_told() -> None:
    answers = {name: Answer(text, 0) for name, text in ANSWERS.items()}
    answers["name-service"] = Answer("", 2)
    found = judge(answers, expectation(is_alone=False))
    (unasked,) = [check for check in found if check.level != "ok"]
    assert (unasked.subject, unasked.level) == ("name service", "skipped")
    assert "outside the test host" in unasked.seen


def test_each_fault_fails_its_own_check_and_no_other() -> None:
    faults = {
        "system state": {"state": "degraded"},
        "failed units": {"failed": "e2scrub_reap.service loaded failed failed"},
        "hostname -f": {"hostname": "web1"},
        "/etc/hosts": {"hosts": "127.0.0.1 localhost\n127.0.1.1 web1.example.org web1"},
        "address": {"addresses": "1: lo inet 127.0.0.1/8"},
        "MAC address": {"macs": "00:16:3e:ff:ff:ff"},
        "default route": {"routes": "10.77.0.0/24 dev enX0"},
        "uname -r": {"kernel": "6.1.0-9-cloud-amd64"},
        "root file system": {"root_size": "/dev/xvda1 900000 600000 200000 16% /"},
        "swap": {"swaps": ""},
        "debconf priority": {"debconf": "* debconf/priority: high"},
        "time zone": {"zone": "/usr/share/zoneinfo/Europe/Paris\nEurope/Paris"},
        "sources.list": {"sources": "deb http://mirror.example.org/debian stable main"},
        "machine-id": {"machine_id": "uninitialized"},
        "host keys": {"host_keys": "ssh-ed25519 BBBB root"},
        "root's password": {"root_password": "$"},
    }
    for name, change in faults.items():
        failed = [check.subject for check in judged(**change).values() if check.level != "ok"]
        assert failed == [name], change


def test_an_answer_that_is_missing_fails_with_its_name() -> None:
    answers = {name: Answer(text, 0) for name, text in ANSWERS.items() if name != "machine-id"}
    failed = [check for check in judge(answers, expectation()) if check.level != "ok"]
    assert [check.subject for check in failed] == ["machine-id"]


def test_answers_are_read_with_their_status_through_a_terminal() -> None:
    output = (
        "noise\r\n@@ kernel\r\n6.1.0\r\n\r\n@@ status 0\r\n@@ module x\r\nno\r\n@@ status 1\r\n"
    )
    assert read_answers(output) == {"kernel": Answer("6.1.0", 0), "module x": Answer("no", 1)}


def test_drbd_must_load_where_its_tools_are_installed() -> None:
    assert "drbd" in modules_for(make_spec(packages=("drbd-utils",)))
    assert "drbd" not in modules_for(make_spec())


def causes(**seen: object) -> list[str]:
    return likely_causes(Seen(**seen))  # type: ignore[arg-type]


def test_a_renamed_card_is_named_as_the_cause() -> None:
    console = "vif vif-0 enX0: renamed from eth0\nDebian GNU/Linux 12 web1 hvc0\n"
    (found,) = causes(console=console, has_login=True)
    assert "udev calls it enX0" in found
    assert causes(console=console, has_login=True, is_reached=True) == []


def test_a_guest_whose_network_failed_is_told_so_even_without_a_login() -> None:
    console = "vif vif-0 enX0: renamed from eth0\n[FAILED] Failed to start networking.service\n"
    assert "udev calls it enX0" in causes(console=console)[-1]


def test_a_silent_guest_has_its_cause() -> None:
    assert "nothing on the console" in causes(console="")[0]


def test_a_missing_driver_and_a_wrong_root_are_told_apart() -> None:
    missing = "initrd: root device /dev/xvda9 did not appear within 30 s\n"
    (found,) = causes(console=f"{missing}initrd: block devices here: loop0 xvda1 xvda2 \n")
    assert "root= does not name the disk's vdev" in found
    assert "the guest has xvda1, xvda2" in found
    (found,) = causes(console=f"{missing}initrd: block devices here: \n")
    assert "no xen-blkfront" in found
    alert = "ALERT!  /dev/xvda9 does not exist.  Dropping to a shell!\n"
    assert "no xen-blkfront" in causes(console=alert)[0]
    alert = f"[    1.0] blkfront: xvda2: flush diskcache: enabled\n{alert}"
    assert "the guest has xvda2" in causes(console=alert)[0]


def test_a_kernel_without_the_note_of_its_kind_is_named() -> None:
    create = "xc: error: panic: xc_dom_core.c: xc_dom_find_loader: no loader found: Invalid kernel"
    pvh = "xc_dom_guest_type: image not capable of booting inside a HVM container: Invalid kernel"
    (found,) = causes(create=pvh, type="pvh")
    assert "the kernel has no PVH note" in found
    (found,) = causes(create=create)
    assert "PV note" in found


def test_a_grub_that_cannot_unpack_the_kernel_is_named() -> None:
    (found,) = causes(console="GNU GRUB  version 2.06\nBooting `Debian'\n", boot="grub")
    assert "LZ4" in found
    assert causes(console="GNU GRUB  version 2.06\nLinux version 6.1.0\n", boot="grub") == []


def test_a_slow_guest_is_told_apart_from_one_without_a_getty() -> None:
    up = "[  OK  ] Reached target multi-user.target - Multi-User System.\n"
    getty = "[  OK  ] Started serial-getty@hvc0.service - Serial Getty on hvc0.\n"
    assert "still starting" in causes(console=getty + up)[0]
    assert "no getty runs on hvc0" in causes(console=up)[0]


def test_a_fault_of_the_host_is_not_the_guests() -> None:
    assert "memory" in find_host_fault("libxl: error: not enough free memory in the system")
    assert "no space" in find_host_fault("cannot write: No space left on device")
    assert find_host_fault("xc_dom_find_loader: no loader found") == ""


def test_a_guest_that_the_emulator_lost_is_told_from_one_that_fell() -> None:
    # of two boots at once under QEMU 7.2's SVM; the guest's own kernel is at ffffffff8...
    lost = """(XEN) d2v0 Triple fault - invoking HVM shutdown action 1
(XEN) *** Dumping Dom2 vcpu#0 state: ***
(XEN) ----[ Xen-4.17.7  x86_64  debug=n  Not tainted ]----
(XEN) CPU:    0
(XEN) RIP:    e008:[<ffff82d0402044a5>]
(XEN) RFLAGS: 0000000000000246   CONTEXT: hvm guest (d2v0)
"""
    assert is_guest_lost(lost)
    own = lost.replace("e008:[<ffff82d0402044a5>]", "0010:[<ffffffff81c00e5a>]")
    assert not is_guest_lost(own)
    assert not is_guest_lost("(XEN) HVM: SVM enabled\n")
