"""Values of spec keys: sizes, names, addresses; nothing escapes, nothing passes for an option."""

import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import WrongValueError
from pipeline.spec import values
from pipeline.xen import values as xen_values

TEXTS = st.text(max_size=80)
NAME_LETTERS = string.ascii_lowercase + string.digits + "_.+-"


def refused(check: Callable[[str], str], text: str) -> WrongValueError:
    with pytest.raises(WrongValueError) as caught:
        check(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "size_mib"),
    [("4G", 4096), ("512M", 512), ("1.5G", 1536), ("2000Mb", 2000), ("128MB", 128), ("1T", 2**20)],
)
def test_sizes_are_read_in_every_form_of_xen_create_image(text: str, size_mib: int) -> None:
    assert values.parse_size(text) == size_mib


@pytest.mark.parametrize("text", ["4X", "", "G", "-4G", "4", "4 GG", "1e3M", "٤G", "4G\n", "0.3M"])
def test_what_is_not_a_size_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(WrongValueError) as caught:
        values.parse_size(text)
    assert caught.value.hint == "write it as 4G, 512M"


def test_the_message_about_a_size_names_the_value() -> None:
    with pytest.raises(WrongValueError) as caught:
        values.check_disk_size("4X")
    assert caught.value.message == "'4X' is not a size"


@pytest.mark.parametrize("text", ["255M", "17T", 4, True, None])
def test_a_disk_is_neither_too_small_nor_too_big_nor_a_number(text: object) -> None:
    with pytest.raises(WrongValueError):
        values.check_disk_size(text)


def test_no_swap_is_a_size_of_zero() -> None:
    assert values.check_swap_size("0") == "0"
    assert values.check_swap_size(0) == "0"
    with pytest.raises(WrongValueError):
        values.check_swap_size(False)


def test_memory_may_be_a_plain_number_of_mib() -> None:
    assert values.check_memory_size(512) == "512M"
    assert values.check_memory_size("512") == "512M"
    with pytest.raises(WrongValueError):
        values.check_memory_size(32)


@given(st.integers(min_value=1, max_value=16 * 2**20))
def test_a_size_that_is_shown_reads_back_the_same(size_mib: int) -> None:
    assert values.parse_size(values.show_size(size_mib)) == size_mib


@given(TEXTS)
def test_any_text_is_a_size_or_refused_as_ours(text: str) -> None:
    try:
        assert values.parse_size(text) >= 0
    except WrongValueError as mistake:
        assert mistake.message


def test_times_are_read_in_seconds() -> None:
    assert values.parse_duration("24h") == 86400
    assert values.parse_duration("0") == 0
    with pytest.raises(WrongValueError):
        values.parse_duration("1 day")


@pytest.mark.parametrize("name", ["web1", "test-drbd", "a", "web1.example.org", "g++", "x" * 63])
def test_good_guest_names_pass(name: str) -> None:
    assert values.check_guest_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "-x", "--force", "../../x", "a/b", "a..b", ".hidden", "Web1", "a b", "a\n", "é"),
        *("x" * 64, "snapshot1", "pvmove0", "web_mimage_0", "a_tdata", "defaults", "a\0b"),
    ],
)
def test_guest_names_that_could_escape_or_mislead_are_refused(name: str) -> None:
    refused(values.check_guest_name, name)


@given(st.one_of(TEXTS, st.text(alphabet=NAME_LETTERS, max_size=70)))
def test_a_name_that_passes_stays_in_its_folder_and_is_no_option(name: str) -> None:
    try:
        values.check_guest_name(name)
    except WrongValueError:
        return
    folder = Path("/output/guests")
    path = Path(f"{folder}/{name}")
    assert path.parent == folder
    assert path.name == name
    assert not name.startswith("-")
    assert name.isascii()
    assert name.isprintable()
    assert len(name.encode()) <= 63


CHECKS = [
    *(values.check_guest_name, values.check_host_name, values.check_package, values.check_kernel),
    *(values.check_mirror, values.check_timezone, values.check_locale, values.check_element),
    *(values.check_group, values.check_absolute_path, values.check_path, values.check_cmdline),
    *(xen_values.check_interface, xen_values.check_mac, values.check_address),
    *(xen_values.check_rate, values.check_netmask, values.check_hosts_line, values.check_hash),
]


@given(st.sampled_from(CHECKS), TEXTS)
def test_any_text_passes_a_check_or_is_refused_and_never_breaks_a_line(
    check: Callable[[str], str], text: str
) -> None:
    try:
        checked = check(text)
    except WrongValueError as mistake:
        assert mistake.message.isprintable()
        return
    assert "\n" not in checked
    assert "\0" not in checked


@given(st.sampled_from(CHECKS[:8]), TEXTS)
def test_what_becomes_an_argument_never_begins_with_a_dash(
    check: Callable[[str], str], text: str
) -> None:
    refused(check, f"-{text}")


@pytest.mark.parametrize("name", ["web1", "web1.example.org", "A-1"])
def test_good_host_names_pass(name: str) -> None:
    assert values.check_host_name(name) == name


@pytest.mark.parametrize("name", ["", "web_1", "-a", "a-", "a..b", "localhost", "10.0.0.1", "a."])
def test_wrong_host_names_are_refused(name: str) -> None:
    refused(values.check_host_name, name)


@pytest.mark.parametrize(
    "mirror",
    [
        *("host", "lan", "http://monmiroir:9999/debian/", "monmiroir:9999", "file:/srv/mirror"),
        *("https://mirror.example.org/debian", "monmiroir:9999/debian", "file:///srv/mirror"),
        *("http://[2001:db8::1]:9999/debian", "10.0.0.1:9999"),
    ],
)
def test_every_form_of_a_mirror_passes(mirror: str) -> None:
    assert values.check_mirror(mirror) == mirror


@pytest.mark.parametrize(
    "mirror",
    [
        *("", "ftp://x/debian", "http://", "http://a b/", "-o", "http://x/../..", "file:debian"),
        "x:y:z",
    ],
)
def test_wrong_mirrors_are_refused(mirror: str) -> None:
    refused(values.check_mirror, mirror)


@pytest.mark.parametrize(
    "kernel",
    ["host", "linux-image-amd64", "linux-image-6.1.0-50-amd64=6.1.192-2", "/boot/vmlinuz-6.1"],
)
def test_every_form_of_a_kernel_passes(kernel: str) -> None:
    assert values.check_kernel(kernel) == kernel


@pytest.mark.parametrize(
    "kernel", ["boot/vmlinuz", "/boot/../etc/shadow", "a=", "a=$(x)", "/", "A"]
)
def test_wrong_kernels_are_refused(kernel: str) -> None:
    refused(values.check_kernel, kernel)


def test_a_package_name_that_apt_would_read_as_a_removal_is_refused() -> None:
    refused(values.check_package, "openssh-server-")
    assert values.check_package("g++") == "g++"


def test_mac_addresses_are_written_in_one_way() -> None:
    assert xen_values.check_mac("00-16-3e-59-2a-ed") == "00:16:3E:59:2A:ED"
    for wrong in ("00:16:3E:59:2A", "01:16:3E:59:2A:ED", "00:00:00:00:00:00", "zz:16:3E:59:2A:ED"):
        refused(xen_values.check_mac, wrong)


@pytest.mark.parametrize("zone", ["../etc/shadow", "/etc/localtime", "Europe/Paris/x/y", "", "A B"])
def test_a_time_zone_is_never_a_path_elsewhere(zone: str) -> None:
    refused(values.check_timezone, zone)


def test_a_misspelt_suite_is_told_the_nearest() -> None:
    assert "did you mean 'bookworm'?" in refused(values.check_suite, "bokworm").hint


def test_kernel_arguments_hold_nothing_that_a_boot_loader_would_read() -> None:
    assert values.check_cmdline("quiet console=hvc0 mitigations=auto,nosmt")
    for wrong in ('a"b', "a'b", "$x", "a;b", "a\\b", "a`b", "a\nb", "{"):
        refused(values.check_cmdline, wrong)


def test_a_wrong_password_hash_is_not_shown() -> None:
    assert "hunter2" not in str(refused(values.check_hash, "hunter2"))
    assert values.check_hash("$6$saltsalt$" + "a" * 86)


def test_a_line_of_hosts_has_an_address_and_names() -> None:
    assert values.check_hosts_line("10.0.0.5 db db.example.org")
    for wrong in ("db", "10.0.0.5", "10.0.0.5 a_b", "", "10.0.0.5 db\n10.0.0.6 x"):
        refused(values.check_hosts_line, wrong)


@pytest.mark.parametrize(
    "text", ["fe80::1%eth0", "fe80::1%a b/64", "::1%\n", "1.2.3.4/33", "1.2.3"]
)
def test_an_address_has_no_zone_and_a_sound_prefix(text: str) -> None:
    refused(values.check_address, text)
    refused(values.check_gateway6, text)
    refused(xen_values.check_ip, text)


def test_a_netmask_is_neither_a_wildcard_nor_a_prefix_length() -> None:
    assert values.check_netmask("255.255.255.0")
    for wrong in ("0.0.0.255", "24", "255.0.255.0"):
        refused(values.check_netmask, wrong)
