from dataclasses import replace
from typing import Any

import pytest

from pipeline.check import access, configuration, contents, kernels, network, system
from pipeline.check.boot_files import BootFiles
from pipeline.check.configuration import expected_domain
from pipeline.check.file_systems import FileSystem
from pipeline.check.tree import Node
from pipeline.guest.identity import render_fstab, render_hosts
from pipeline.guest.network import network_files
from pipeline.kernel.facts import KernelFacts
from pipeline.xen.render import render_libvirt, render_xl, render_xm
from tests.unit.check_facts import by_name, failed, make_facts, make_tree

ABI = "6.1.0-1-amd64"
HASH = "$6$saltsalt$0123456789abcdef0123456789"
STATIC = {
    "address": ["192.168.1.10/24", "2001:db8::5/64"],
    "gateway": "192.168.1.1",
    "nameservers": ["192.168.1.1"],
}
KERNEL = KernelFacts(
    is_bzimage=True,
    version=f"{ABI} x",
    compression="xz",
    elf_notes={"ENTRY": "0x1", "LOADER": "generic", "PHYS32_ENTRY": "0x1"},
)


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("*", "locked"),
        ("!", "locked"),
        (f"!{HASH}", "locked"),
        ("", "empty: anybody may enter"),
        (HASH, "a hash that lenny understands"),
        ("$y$j9T$abc", "a hash that lenny does not understand"),
    ],
)
def test_a_password_field_is_told_without_showing_it(field: str, shown: str) -> None:
    assert access.describe_password(field, ("$6$", "$1$"), "lenny") == shown


@pytest.mark.parametrize(
    ("given", "field", "faults"),
    [
        ("", "*", set()),
        ("", HASH, {"root password"}),
        (HASH, HASH, set()),
        (HASH, "*", {"root password"}),
        (HASH, HASH.replace("salt", "pepp"), {"root password"}),
    ],
)
def test_root_has_the_password_of_the_spec_or_none(
    given: str, field: str, faults: set[str]
) -> None:
    shadow = Node("file", 0o640, 0, 42, f"root:{field}:1:0:::::\n".encode())
    passwd = "root:x:0:0:root:/root:/bin/bash\n"
    keys = {"root_password_hash": given} if given else {}
    facts = make_facts({"/etc/shadow": shadow, "/etc/passwd": passwd}, **keys)
    findings = list(access.check_passwords(facts))
    assert failed(findings) == faults
    assert not any(HASH[10:] in finding.seen for finding in findings)


@pytest.mark.parametrize("fqdn", [{}, {"domain": "example.org"}, {"hosts": ["10.0.0.9 db"]}])
def test_hosts_as_the_identity_writes_them_are_right(fqdn: dict[str, object]) -> None:
    facts = make_facts({}, **fqdn)
    files = {"/etc/hostname": "web1\n", "/etc/hosts": render_hosts(facts.spec)}
    assert failed(system.check_names(make_facts(files, **fqdn))) == set()


def test_a_second_line_for_the_own_name_is_found() -> None:
    hosts = "127.0.1.1 web1\n127.0.0.1 web1 localhost\n"
    facts = make_facts({"/etc/hostname": "web1\n", "/etc/hosts": hosts})
    assert failed(system.check_names(facts)) == {"hosts"}


@pytest.mark.parametrize(
    ("lines", "is_right"),
    [
        ("1:2345:respawn:/sbin/getty 38400 hvc0\n", True),
        ("co:2345:respawn:/sbin/getty -h -L hvc0 115200 ansi\n", True),
        ("#1:2345:respawn:/sbin/getty 38400 hvc0\n", False),
        ("1:2345:respawn:/sbin/getty 38400 tty1\n", False),
        ("1:2345:respawn:/sbin/getty 38400 hvc0\n2:2345:respawn:/sbin/getty 38400 hvc0\n", False),
    ],
)
def test_inittab_has_exactly_one_getty_on_the_console(lines: str, is_right: bool) -> None:
    facts = make_facts({"/etc/inittab": f"id:2:initdefault:\n{lines}"}, init="sysvinit")
    assert failed(system.check_console(facts)) == (set() if is_right else {"hvc0 getty"})


def test_a_getty_that_is_masked_does_not_count() -> None:
    unit = "/lib/systemd/system/serial-getty@.service"
    link = "/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service"
    files = {unit: "", link: f"-> {unit}"}
    assert failed(system.check_console(make_facts(files))) == set()
    masked = {**files, "/etc/systemd/system/serial-getty@.service": "-> /dev/null"}
    assert failed(system.check_console(make_facts(masked))) == {"hvc0 getty"}
    assert failed(system.check_console(make_facts({link: f"-> {unit}"}))) == {"hvc0 getty"}


def test_a_console_that_securetty_refuses_is_found() -> None:
    files = {"/etc/inittab": "1:2345:respawn:/sbin/getty 38400 hvc0\n", "/etc/securetty": "tty1\n"}
    assert failed(system.check_console(make_facts(files, init="sysvinit"))) == {"securetty"}


def test_sysvinit_needs_pts_and_shm_in_fstab() -> None:
    spec = make_facts(init="sysvinit").spec
    right = {"/etc/fstab": render_fstab(spec)}
    name = "/dev/pts, /dev/shm"
    assert name not in failed(system.check_devices(make_facts(right, init="sysvinit")))
    wrong = {"/etc/fstab": "/dev/xvda1 / ext4 defaults 0 1\n"}
    assert name in failed(system.check_devices(make_facts(wrong, init="sysvinit")))


@pytest.mark.parametrize(
    ("line", "is_right"),
    [
        ("deb http://x/ bookworm main", True),
        ("deb http://x/ stable main", False),
        ("deb http://x/ oldstable main", False),
        ("deb http://x/ bookworm main\ndeb http://x/ trixie main", False),
        ("deb http://x/ bookworm main\ndeb http://x/ bookworm-security main", True),
        ("", False),
    ],
)
def test_sources_name_the_suite_and_nothing_that_moves(line: str, is_right: bool) -> None:
    findings = by_name(system.check_place(make_facts({"/etc/apt/sources.list": line})))
    assert (findings["apt sources"].level == "ok") == is_right


@pytest.mark.parametrize("init", ["systemd", "sysvinit"])
@pytest.mark.parametrize("card", [{}, STATIC, {"dhcp": True, "mtu": 1400}])
def test_network_files_as_the_identity_writes_them_are_right(
    init: str, card: dict[str, Any]
) -> None:
    files = network_files(make_facts(init=init, **card).spec)
    if init == "systemd":
        files["/etc/resolv.conf"] = "-> ../run/systemd/resolve/resolv.conf"
        wants = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
        files[wants] = ""
    else:
        files["/etc/rcS.d/S10networking"] = ""
        files["/etc/systemd/network/10-domu-network.link"] = "[Link]\nNamePolicy=keep kernel\n"
    facts = make_facts(files, init=init, **card)
    assert failed(network.check_network_files(facts)) == set()
    assert network.network_names(facts.tree, facts.spec) >= {"eth0"}


def test_without_the_link_file_udev_would_rename_the_card() -> None:
    files = network_files(make_facts(init="sysvinit").spec)
    facts = make_facts({**files, "/etc/rcS.d/S10networking": ""}, init="sysvinit")
    assert failed(network.check_network_files(facts)) == {"card 0 names"}


def test_another_file_for_the_same_card_is_found() -> None:
    files = network_files(make_facts().spec)
    files["/etc/systemd/network/05-x.network"] = "[Match]\nName=eth0 enX0\n[Network]\nDHCP=no\n"
    failures = failed(network.check_network_files(make_facts(files)))
    assert {"card 0 names", "card 0 address"} <= failures


def test_configurations_as_rendered_are_right_and_a_missing_one_is_found() -> None:
    facts = make_facts(type="pv")
    domain = expected_domain(facts)
    texts = {
        "web1.cfg": render_xl(domain),
        "web1.xm": render_xm(domain),
        "web1.xml": render_libvirt(domain),
    }
    sizes = dict.fromkeys(("disk.img", "swap.img", "vmlinuz", "initrd.img"), 1)
    whole = replace(facts, texts=texts, sizes=sizes)
    assert failed(configuration.check_configurations(whole)) == set()
    del texts["web1.xm"]
    assert failed(configuration.check_configurations(whole)) == {"web1.xm"}
    texts["web1.xm.unsupported"] = "why\n"
    assert failed(configuration.check_configurations(whole)) == set()


def kernel_inside(**changed: str) -> dict[str, str | Node]:
    args = "root=/dev/xvda1 ro rootfstype=ext4 console=hvc0"
    kernel, initrd = f"/boot/vmlinuz-{ABI}", f"/boot/initrd.img-{ABI}"
    folder = f"/lib/modules/{ABI}"
    linux = f"  linux {kernel} {args}\n  initrd {initrd}"
    files = {
        kernel: "",
        initrd: "",
        "/boot/grub/grub.cfg": f'menuentry "Linux" {{\n{linux}\n}}\n',
        "/boot/grub/menu.lst": f"title Linux\nkernel {kernel} {args}\ninitrd {initrd}\n",
        f"{folder}/": "",
        f"{folder}/modules.dep": "net/xen-netfront.ko:\nnet/nf_tables.ko.xz:\n",
        f"{folder}/modules.builtin": "fs/ext4/ext4.ko\nblock/xen-blkfront.ko\n",
        f"{folder}/net/xen-netfront.ko": "",
        f"{folder}/net/nf_tables.ko.xz": "",
        "/etc/fstab": "/dev/xvda1 / ext4 defaults 0 1\n",
    }
    return {**files, **changed}


def inside(files: dict[str, str | Node]) -> set[str]:
    facts = make_facts(files, boot="pygrub", kernel="linux-image-amd64")
    return failed(kernels.check_modules(facts))


def test_a_guest_with_its_own_kernel_has_menus_modules_and_initrd_of_it() -> None:
    assert inside(kernel_inside()) == set()


def test_a_kernel_without_initrd_modules_or_menu_entry_is_found() -> None:
    newer = kernel_inside(**{"/boot/vmlinuz-6.1.0-2-amd64": ""})
    menus = {"/boot/grub/grub.cfg", "/boot/grub/menu.lst"}
    assert inside(newer) == {"initrds", "modules", *menus}


def test_a_menu_that_is_gone_or_names_another_root_is_found() -> None:
    files = kernel_inside()
    del files["/boot/grub/menu.lst"]
    assert inside(files) == {"/boot/grub/menu.lst"}
    menu = str(kernel_inside()["/boot/grub/grub.cfg"]).replace("xvda1", "xvda2")
    assert inside(kernel_inside(**{"/boot/grub/grub.cfg": menu})) == {"/boot/grub/grub.cfg"}


def test_drbd_utils_need_the_drbd_module() -> None:
    status = {"/var/lib/dpkg/status": "Package: drbd-utils\nStatus: install ok installed\n"}
    assert inside(kernel_inside(**status)) == {"module drbd"}


def test_built_in_drivers_are_read_from_modules_builtin_or_the_config() -> None:
    tree = make_tree(kernel_inside())
    config = kernels.built_in_config(tree, ABI) or ""
    assert "CONFIG_XEN_BLKDEV_FRONTEND=y" in config
    assert "CONFIG_EXT4_FS=y" in config
    own = make_tree(kernel_inside(**{f"/boot/config-{ABI}": "CONFIG_X=y\n"}))
    assert kernels.built_in_config(own, ABI) == "CONFIG_X=y\n"
    assert kernels.built_in_config(make_tree({}), ABI) is None
    assert kernels.module_names(tree, ABI)["ext4"] == "built in"


def test_the_lint_sees_the_guests_own_menu_and_kernel() -> None:
    facts = make_facts(kernel_inside(), boot="pygrub", kernel="linux-image-amd64", dhcp=False)
    boot = BootFiles(KERNEL, frozenset(), 1 << 20)
    codes = failed(kernels.check_bootability(replace(facts, boot=boot)))
    assert codes == {"no-hvc0-getty", "card-name"}


def test_a_kernel_that_is_compressed_in_another_way_than_the_suites_is_told() -> None:
    facts = make_facts()
    kernel = KernelFacts(is_bzimage=True, compression="zstd")
    seen = by_name(kernels.check_bootability(replace(facts, boot=BootFiles(kernel=kernel))))
    told = seen["kernel's compression"]
    assert (told.level, told.expected, told.seen) == ("warning", "lz4", "zstd")
    kernel = replace(kernel, compression="lz4")
    seen = by_name(kernels.check_bootability(replace(facts, boot=BootFiles(kernel=kernel))))
    assert "kernel's compression" not in seen


def test_an_unreadable_kernel_fails_instead_of_passing_unseen() -> None:
    facts = replace(make_facts(kernel_inside()), boot=BootFiles(faults=("no vmlinuz",)))
    assert "boot files" in failed(kernels.check_bootability(facts))


def test_the_file_system_is_the_one_that_the_suite_wants() -> None:
    facts = make_facts(size="1G", swap="0")
    features = frozenset(facts.spec.mke2fs_features("ext4").split(",")) - {"none"}
    uuid = "53ddb61c-fc16-5204-93cf-e8e150c35e86"
    found = FileSystem(features=features, uuid=uuid, size=1 << 30, faults="")
    facts = replace(facts, file_system=found, sizes={"disk.img": 1 << 30})
    assert failed(contents.check_file_system(facts)) == set()
    odd = replace(found, features=features - {"extent"} | {"casefold"}, faults="Inode 7 is bad")
    findings = by_name(contents.check_file_system(replace(facts, file_system=odd)))
    assert findings["features"].seen == "lacks extent; has casefold"
    assert findings["e2fsck"].level == "error"
    extra = replace(facts, sizes={"disk.img": 1 << 30, "swap.img": 4096})
    assert failed(contents.check_file_system(extra)) == {"swap"}


def test_the_password_itself_is_looked_for_in_every_text() -> None:
    texts = {"stages.json": "correct horse battery", "x.cfg": "nothing"}
    facts = replace(make_facts(), texts=texts, secret=b"correct horse")
    assert failed(contents.check_secrets(facts)) == {"artifact's secrets"}
    assert failed(contents.check_secrets(replace(facts, secret=b""))) == set()


def test_an_artifact_of_an_older_spec_names_the_keys_that_changed() -> None:
    facts = replace(make_facts(memory="256M"), keys=frozenset({"memory", "size"}))
    record = '{"memory": "512M", "size": "4G", "description": "of no weight"}'
    findings = by_name(contents.check_spec(replace(facts, texts={"spec.json": record})))
    assert findings["spec"].seen == "made from another spec: memory"


def test_sums_leave_a_disk_alone_that_its_guest_wrote_to() -> None:
    sums = f"sha256:{'a' * 64} disk.img\n"
    facts = replace(make_facts(), texts={"FSVERITY": sums}, written=frozenset({"disk.img"}))
    findings = by_name(contents.check_sums(facts, lambda path: "b" * 64))
    assert findings["disks"].level == "warning"
    assert "disk.img has changed" not in findings["SHA256SUMS"].seen
    assert "web1.cfg is not in it" in findings["SHA256SUMS"].seen
