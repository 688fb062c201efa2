"""xen-create-image's options: each is answered; the seed's lines translate word by word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.spec import Spec, known_variables, parse_overrides, translate_options
from pipeline.spec.xen_create_image.options import find_option, render_options_page
from pipeline.spec.xen_create_image.table import OPTIONS

# the options of xen-create-image(8), line by line
FIELD = """
hostname dir lvm lvm_thin evms zpool image-dev swap-dev dontformat size swap noswap memory maxmem
vcpus image fs partitions dist arch mirror keyring apt_proxy install-method install-source
debootstrap-cmd install hooks cache cachedir copy-cmd tar-cmd modules kernel initrd pygrub nopygrub
type boot noboot output extension template ide scsi disk_device serial_device admins dhcp nodhcp ip
netmask gateway broadcast nameserver p2p mac randommac bridge vifname vlan passwd password genpass
genpass_len hash_method accounts copyhosts nohosts role role-args roledir finalrole force noforce
keep config dumpconfig verbose debug help manual version no-xen-ok volume copy tar debootstrap
rpmstrap no-install no-hooks copyconf ext3_options
""".split()


@pytest.mark.parametrize("name", FIELD)
def test_every_option_of_xen_create_image_has_an_answer(name: str) -> None:
    option = find_option(name)
    assert option is not None
    assert option.answer
    assert f"`--{name.replace('_', '-')}`" in render_options_page()


def test_the_line_of_xen_tools_4_translates_word_by_word() -> None:
    done = translate_options(
        {
            "hostname": "test-drbd",
            "kernel": "/boot/vmlinuz-2.6.26-2-xen-686",
            "initrd": "/boot/initrd.img-2.6.26-2-xen-686",
            "dist": "lenny",
            "mirror": "http://monmiroir:9999/debian/",
            "dhcp": "",
            "lvm": "VG0",
            "size": "4G",
            "role": "udev",
        }
    )
    assert done.problems == []
    assert done.overrides == {
        "name": "test-drbd",
        "hostname": "test-drbd",
        "kernel": "/boot/vmlinuz-2.6.26-2-xen-686",
        "initrd": "/boot/initrd.img-2.6.26-2-xen-686",
        "suite": "lenny",
        "mirror": "http://monmiroir:9999/debian/",
        "dhcp": "yes",
        "lvm": "VG0",
        "size": "4G",
    }
    spec = Spec.model_validate(parse_overrides(done.overrides))
    assert (spec.suite, spec.lvm, spec.size_mib, spec.kernel_source) == (
        "lenny",
        "VG0",
        4096,
        "files",
    )


def test_the_older_line_translates_word_by_word() -> None:
    done = translate_options(
        {
            "--hostname": "montest",
            "--kernel": "/boot/vmlinuz-2.6.18-6-xen-686",
            "--initrd": "/boot/initrd.img-2.6.18-6-xen-686",
            "--debootstrap": "",
            "--dist": "etch",
            "--mirror": "monmiroir:9999",
            "--dhcp": "",
            "--lvm": "VG0",
            "--size": "4G",
        }
    )
    assert done.problems == []
    spec = Spec.model_validate(parse_overrides(done.overrides))
    assert (spec.name, spec.suite, spec.bootstrap) == ("montest", "etch", "debootstrap")
    assert (spec.mirror, spec.dhcp, spec.fs) == ("monmiroir:9999", True, "ext3")


@pytest.mark.parametrize(
    ("option", "value", "overrides"),
    [
        ("ip", "10.0.0.5", {"address": "10.0.0.5"}),
        ("nameserver", "10.0.0.1", {"nameservers": "10.0.0.1"}),
        ("noswap", "", {"swap": "0"}),
        ("pygrub", "", {"boot": "pygrub"}),
        ("nopygrub", "1", {"boot": "direct"}),
        ("nodhcp", "", {"dhcp": "no"}),
        ("dhcp", "0", {"dhcp": "no"}),
        ("passwd", "", {"root_password_file": "-"}),
        ("install-method", "debootstrap", {"bootstrap": "debootstrap"}),
        ("debootstrap_cmd", "/usr/bin/mmdebstrap", {"bootstrap": "mmdebstrap"}),
        ("role", "udev,sudoers", {"packages": "sudo"}),
        ("force", "", {}),
        ("genpass", "0", {}),
        ("serial_device", "hvc0", {}),
        ("accounts", "0", {}),
        ("copyhosts", "no", {}),
        ("noaccounts", "", {}),
        ("nopasswd", "", {}),
        ("no-swap", "", {"swap": "0"}),
        ("ext4_options", "noatime,nodiratime,errors=remount-ro", {}),
    ],
)
def test_an_option_becomes_our_words(option: str, value: str, overrides: dict[str, str]) -> None:
    done = translate_options({option: value})
    assert done.problems == []
    assert done.overrides == overrides


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("password", "hunter2"),
        ("evms", "c"),
        ("install_method", "rinse"),
        ("role", "cfengine"),
        ("role", "editor"),
        ("role", "udev,mysite"),
        ("ip", "auto"),
        ("dhcp", "perhaps"),
        ("accounts", "1"),
        ("copyhosts", ""),
        ("copyconf", ""),
        ("serial_device", "ttyS0"),
        ("nonsense", "1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do_instead(option: str, value: str) -> None:
    done = translate_options({option: value})
    (problem,) = done.problems
    assert problem.hint
    assert "hunter2" not in str(problem)


def test_what_is_done_differently_is_said() -> None:
    assert translate_options({"role": "udev"}).notes[0].startswith("role: ")
    assert translate_options({"size": "4G"}).notes == []


def test_boot_is_a_key_and_an_option_of_xen_create_image() -> None:
    assert parse_overrides({"boot": "pygrub"}) == {"boot": "pygrub"}
    assert parse_overrides({"boot": "0"}) == parse_overrides({"boot": ""}) == {}
    assert translate_options({"boot": "0"}).notes


def test_contradicting_options_are_refused() -> None:
    assert translate_options({"dhcp": "", "nodhcp": ""}).problems


def test_dashes_and_underlines_are_the_same() -> None:
    assert find_option("install-method") is find_option("install_method")
    assert find_option("--no-xen-ok") is find_option("no_xen_ok")


def test_every_key_that_an_option_becomes_exists() -> None:
    for name, option in OPTIONS.items():
        if option.status == "same":
            keys = option.translate("debootstrap" if "bootstrap" in option.answer else "1")
            assert set(keys) <= set(Spec.model_fields), name
    assert set(OPTIONS) <= known_variables()


@given(st.dictionaries(st.one_of(st.text(), st.sampled_from(sorted(OPTIONS))), st.text()))
def test_any_options_are_translated_or_refused_never_raised(options: dict[str, str]) -> None:
    done = translate_options(options)
    assert set(done.overrides) <= set(Spec.model_fields)


def test_a_role_is_answered_for_itself_and_not_for_every_role() -> None:
    assert translate_options({"role": "udev"}).notes == ["role: `udev`: every guest has udev"]
    (note,) = translate_options({"role": "udev,xdm"}).notes
    assert note.startswith("role: `udev`: every guest has udev; `xdm`: the package")


def test_a_role_brings_all_its_packages_and_says_what_is_not_done() -> None:
    """xen-tools 4.9.2's builder has seven packages, its sudoers copies the host's file."""
    builder = translate_options({"role": "builder"})
    wanted = {"build-essential", "debhelper", "devscripts", "dpkg-dev", "fakeroot", "lintian"}
    assert set(builder.overrides["packages"].split(",")) == wanted
    assert "linda" in builder.notes[0]
    (sudo,) = translate_options({"role": "sudoers"}).notes
    assert "/etc/sudoers is not copied" in sudo


def test_the_editor_role_is_refused_because_it_would_not_install_an_editor() -> None:
    (problem,) = translate_options({"role": "editor"}).problems
    assert "sed" in str(problem)
