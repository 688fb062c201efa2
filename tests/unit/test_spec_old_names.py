"""What an old guest is called inside and outside: disks, console, architecture, configuration."""

import gzip
import struct
from pathlib import Path

import pytest

from pipeline.guest.domains import domain_of
from pipeline.guest.identity import render_fstab
from pipeline.kernel.assembly import name_whole_paths
from pipeline.kernel.image import read_kernel
from pipeline.mirror.mirrors import Archive, render_guest_sources
from pipeline.mirror.release import Terms
from pipeline.project import Project
from pipeline.spec import Spec
from pipeline.spec.domain import command_line, xl_version, xm_version
from pipeline.stages.rootfs import elements_of
from pipeline.xen import xm
from pipeline.xen.render import render_xm


def spec_of(suite: str, **keys: object) -> Spec:
    return Spec.model_validate(
        {"name": "old1", "suite": suite, "mirror": "http://m/debian", **keys}
    )


@pytest.mark.parametrize(
    ("suite", "kernel", "console", "disk"),
    [
        ("etch", "", "tty1", "/dev/sda1"),
        ("etch", "/boot/vmlinuz-2.6.18-6-xen-686", "tty1", "/dev/sda1"),
        ("etch", "/boot/vmlinuz-2.6.26-2-xen-686", "hvc0", "/dev/sda1"),
        ("etch", "linux-image-2.6.18-6-xen-686", "tty1", "/dev/sda1"),
        ("lenny", "", "hvc0", "/dev/xvda1"),
        ("lenny", "/boot/vmlinuz-2.6.18-6-xen-686", "tty1", "/dev/xvda1"),
        ("bookworm", "/boot/vmlinuz-6.1.0-1-amd64", "hvc0", "/dev/xvda1"),
    ],
)
def test_the_console_is_the_kernels_and_the_disk_the_suites(
    suite: str, kernel: str, console: str, disk: str
) -> None:
    spec = spec_of(suite, **({"kernel": kernel} if kernel else {}))
    assert (spec.console, spec.root_device) == (console, disk)
    assert f"console={console}" in command_line(spec)
    assert render_fstab(spec).startswith(f"{disk} / {spec.fs} ")
    domain = domain_of(spec, Project(Path("/srv"), Path("/srv"), Path("/srv")))
    assert [f"/dev/{one.vdev}" for one in domain.disks] == [disk, f"{disk[:-1]}2"]


@pytest.mark.parametrize(
    ("kernel", "arch"),
    [
        ("/boot/vmlinuz-2.6.26-2-xen-686", "i386"),
        ("linux-image-686-pae", "i386"),
        ("linux-image-2.6-686-bigmem", "i386"),
        ("linux-image-amd64", "amd64"),
    ],
)
def test_a_686_kernel_makes_a_32_bit_guest_unless_the_spec_says_otherwise(
    kernel: str, arch: str
) -> None:
    assert spec_of("lenny", kernel=kernel).arch == arch
    assert spec_of("lenny", kernel=kernel, arch="amd64").arch == "amd64"


@pytest.mark.parametrize(
    ("suite", "xen", "for_xl", "for_xm"),
    [
        ("etch", "4.17", "4.17", "3.0"),
        ("lenny", "4.17", "4.17", "3.2"),
        ("bookworm", "4.17", "4.17", "3.2"),
        ("lenny", "3.4", "4.2", "3.4"),
        ("lenny", "4.4", "4.4", "4.4"),
    ],
)
def test_each_configuration_is_for_a_xen_that_reads_it(
    suite: str, xen: str, for_xl: str, for_xm: str
) -> None:
    spec = spec_of(suite, xen=xen)
    assert (xl_version(spec), xm_version(spec)) == (for_xl, for_xm)


def test_etchs_configuration_is_python_with_its_names() -> None:
    spec = spec_of("etch", kernel="/boot/vmlinuz-2.6.18-6-xen-686")
    domain = domain_of(spec, Project(Path("/srv"), Path("/srv"), Path("/srv")))
    values = xm.parse_assignments(render_xm(domain, xen=xm_version(spec)))
    assert values["disk"] == [
        "file:/srv/guests/old1/disk.img,sda1,w",
        "file:/srv/guests/old1/swap.img,sda2,w",
    ]
    assert str(values["root"]).startswith("/dev/sda1")


def test_sources_of_an_apt_without_options_have_none() -> None:
    archive = Archive("http://m/debian", "http://m/debian-security", terms=Terms())
    for suite, has_option in (("lenny", False), ("jessie", False), ("stretch", True)):
        text = render_guest_sources(spec_of(suite), archive)
        assert ("[check-valid-until=no]" in text) is has_option
        assert f" {suite} main" in text


def test_only_releases_with_old_tools_get_the_element_that_translates_for_them() -> None:
    assert "old-tools" in elements_of(spec_of("etch"))
    assert "old-tools" not in elements_of(spec_of("squeeze"))


def test_modules_dep_names_whole_paths_for_an_old_modprobe(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/a.ko:\nkernel/b.ko: kernel/a.ko\n")
    (tmp_path / "modules.dep.bin").write_bytes(b"\0")
    (tmp_path / "modules.order").write_bytes(b"")
    name_whole_paths(tmp_path, "2.6.26-2-xen-686")
    home = "/lib/modules/2.6.26-2-xen-686/kernel"
    assert (tmp_path / "modules.dep").read_text() == f"{home}/a.ko:\n{home}/b.ko: {home}/a.ko\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["modules.dep", "modules.order"]


def test_a_kernel_that_is_no_bzimage_says_its_version_in_its_banner() -> None:
    elf = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 3, 1)
    elf += struct.pack("<IIIIHHHHHH", 0, 52, 0, 0, 52, 32, 0, 0, 0, 0)
    elf += b"Linux version 2.6.26-2-xen-686 (Debian 2.6.26-19) (x@y)\n\0"
    assert read_kernel(gzip.compress(elf)).release == "2.6.26-2-xen-686"
