"""Loading: layers, every mistake at once, and the nearest right word."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import Finding, SpecError, UsageError
from pipeline.spec import draft_spec, known_variables, load_all, load_guest, parse_overrides

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]


@pytest.fixture
def write(guests: Path) -> Write:
    def write_file(name: str, text: str = "") -> Path:
        path = guests / f"{name}.toml"
        path.write_text(text)
        return path

    return write_file


def problems_of(guests: Path, name: str = "tiny", **overrides: str) -> list[Finding]:
    with pytest.raises(SpecError) as caught:
        load_guest(name, guests_dir=guests, overrides=overrides)
    return caught.value.problems


def test_the_guest_wins_over_the_defaults_and_the_command_line_over_both(
    guests: Path, write: Write
) -> None:
    write("defaults", 'size = "8G"\nswap = "1G"\nmemory = "1G"\n')
    write("tiny", 'swap = "2G"\nmemory = "2G"\n')
    spec = load_guest("tiny", guests_dir=guests, overrides={"memory": "4G"})
    assert (spec.size, spec.swap, spec.memory) == ("8G", "2G", "4G")


def test_a_wrong_size_is_told_with_file_key_value_and_the_right_form(
    guests: Path, write: Write
) -> None:
    write("tiny", 'size = "4X"\n')
    with pytest.raises(SpecError) as caught:
        load_guest("tiny", guests_dir=guests)
    assert caught.value.brief == (
        "guests/tiny.toml: size: '4X' is not a size\n    write it as 4G, 512M"
    )
    assert caught.value.exit_code == 2


def test_every_mistake_is_reported_at_once_each_with_its_source(guests: Path, write: Write) -> None:
    write("defaults", 'suite = "bokworm"\n')
    write("tiny", 'size = "4X"\nvcpus = "two"\nupdates = "no"\nsiez = "1G"\nmac = "x"\n')
    found = {(one.source, one.subject) for one in problems_of(guests, timezone="../x", foo="1")}
    assert found == {
        *(("guests/defaults.toml", "suite"), ("guests/tiny.toml", "size")),
        *(("guests/tiny.toml", "vcpus"), ("guests/tiny.toml", "updates")),
        *(("guests/tiny.toml", "siez"), ("guests/tiny.toml", "mac")),
        *(("command line", "timezone"), ("command line", "foo")),
    }


def test_keys_that_clash_are_reported_beside_values_that_are_wrong(
    guests: Path, write: Write
) -> None:
    write("tiny", 'size = "4X"\nvncdisplay = 2\nboot = "firmware"\nlvm_thin = "pool"\n')
    assert {one.subject for one in problems_of(guests)} == {
        "size",
        "vncdisplay",
        "boot",
        "disk",
        "lvm_thin",
    }


def test_a_clash_with_a_wrong_value_is_not_reported_on_top_of_it(
    guests: Path, write: Write
) -> None:
    write("tiny", 'memory = "much"\nmaxmem = "128M"\n')
    assert [one.subject for one in problems_of(guests)] == ["memory"]


def test_an_unknown_key_is_answered_with_the_nearest_or_the_option_it_comes_from(
    guests: Path, write: Write
) -> None:
    write("tiny", 'sutie = "bookworm"\ndist = "bookworm"\n')
    hints = {one.subject: one.hint for one in problems_of(guests)}
    assert hints["sutie"] == "did you mean 'suite'?"
    assert "`suite`" in hints["dist"]


def test_a_wrong_choice_is_answered_with_the_choices(guests: Path, write: Write) -> None:
    write("tiny", 'type = "pvv"\n')
    (problem,) = problems_of(guests)
    assert problem.message == "'pvv' is not one of pv, pvh, hvm"
    assert problem.hint == "did you mean 'pv'?"


def test_wrong_tables_of_further_cards_are_named_by_their_place(guests: Path, write: Write) -> None:
    write("tiny", '[[interfaces]]\n[[interfaces]]\nmac = "x"\nbrigde = "a"\n')
    found = {one.subject: one.hint for one in problems_of(guests)}
    assert set(found) == {"interfaces[1].mac", "interfaces[1].brigde"}
    assert found["interfaces[1].brigde"] == "did you mean 'bridge'?"


def test_broken_toml_is_told_with_its_line(guests: Path, write: Write) -> None:
    write("tiny", 'size = "4G"\nswap = 4G\n')
    (problem,) = problems_of(guests)
    assert problem.source == "guests/tiny.toml"
    assert "line 2" in problem.message


def test_a_file_that_is_no_text_is_a_problem_not_a_traceback(guests: Path) -> None:
    (guests / "tiny.toml").write_bytes(b"\xff\xfe")
    assert "UTF-8" in problems_of(guests)[0].message


def test_an_unknown_guest_is_answered_with_the_nearest_and_the_list(
    guests: Path, write: Write
) -> None:
    write("tiny")
    write("web1")
    with pytest.raises(UsageError) as caught:
        load_guest("tinny", guests_dir=guests)
    assert not isinstance(caught.value, SpecError)
    assert "did you mean 'tiny'?" in caught.value.hint
    assert "tiny, web1" in caught.value.hint


@pytest.mark.parametrize("name", ["../../x", "-x", "a/b", "", "defaults"])
def test_a_name_cannot_leave_the_folder(guests: Path, name: str) -> None:
    for call in (lambda: load_guest(name, guests_dir=guests), lambda: load_all(guests, [name])):
        with pytest.raises(SpecError, match="name"):
            call()
    with pytest.raises(SpecError, match="name"):
        draft_spec(name, {}, guests)


def test_a_name_in_the_file_must_be_the_name_of_the_file(guests: Path, write: Write) -> None:
    write("tiny", 'name = "other"\n')
    assert problems_of(guests)[0].subject == "name"


def test_what_belongs_to_one_guest_is_refused_in_the_defaults(guests: Path, write: Write) -> None:
    write("defaults", 'mac = "00:16:3E:00:00:01"\n')
    write("tiny")
    assert problems_of(guests)[0].message == "belongs to one guest alone"


def test_files_that_are_named_must_exist(guests: Path, write: Write) -> None:
    write(
        "tiny",
        'kernel = "/none/vmlinuz"\ninitrd = "/none/initrd"\nmodules = "/none/modules"\n'
        'root_password_file = "secret"\nelements_path = ["mine"]\nmirror = "nowhere"\n'
        'authorized_keys = ["admin.pub"]\n',
    )
    found = {one.subject: one.message for one in problems_of(guests)}
    assert set(found) == {
        *("kernel", "initrd", "modules", "root_password_file", "elements_path", "mirror"),
        *("guest_mirror", "authorized_keys"),
    }
    assert str(guests / "secret") in found["root_password_file"]


def test_relative_paths_are_relative_to_the_spec(guests: Path, write: Write) -> None:
    (guests / "secret").write_text("x")
    write("tiny", 'root_password_file = "secret"\n')
    spec = load_guest("tiny", guests_dir=guests)
    assert spec.root_password_file == str(guests / "secret")


def test_an_address_from_above_takes_the_place_of_dhcp_below(guests: Path, write: Write) -> None:
    write("tiny", "dhcp = true\n")
    spec = load_guest(
        "tiny", guests_dir=guests, overrides={"ip": "10.0.0.5/24", "gateway": "10.0.0.1"}
    )
    assert not spec.dhcp
    assert spec.address == ("10.0.0.5/24",)


def test_dhcp_from_above_takes_the_place_of_an_address_below(guests: Path, write: Write) -> None:
    write("tiny", 'address = "10.0.0.5/24"\ngateway = "10.0.0.1"\n')
    spec = load_guest("tiny", guests_dir=guests, overrides={"dhcp": ""})
    assert (spec.dhcp, spec.address, spec.gateway) == (True, (), "")


def test_all_guests_are_loaded_and_one_of_them_with_the_command_line(
    guests: Path, write: Write
) -> None:
    write("defaults", 'size = "8G"\n')
    write("tiny")
    write("web1", 'kernel = "/none/vmlinuz"\n')
    specs = load_all(guests, ["tiny"], {"size": "2G"})
    assert {name: spec.size for name, spec in specs.items()} == {"tiny": "2G", "web1": "8G"}


def test_a_mistake_in_the_defaults_is_reported_once(guests: Path, write: Write) -> None:
    write("defaults", 'size = "4X"\n')
    write("tiny")
    write("web1")
    specs = load_all(guests)
    assert not specs
    assert specs.broken
    assert len(specs.broken.problems) == 1


def test_a_broken_file_stops_its_own_guest_alone(guests: Path, write: Write) -> None:
    write("bad", 'suit = "bookworm"\n')
    write("worse", "[[")
    write("tiny")
    for specs in (load_all(guests, ["tiny"]), load_all(guests)):
        assert list(specs) == ["tiny"]
        assert set(specs.problems) == {"bad", "worse"}
    assert "did you mean 'suite'?" in str(specs.problems["bad"][0])
    with pytest.raises(SpecError, match="suit: ") as caught:
        load_all(guests, ["bad"])
    assert len(caught.value.problems) == 1


def test_a_spec_may_begin_with_the_byte_order_mark_of_windows(guests: Path) -> None:
    (guests / "tiny.toml").write_bytes(b'\xef\xbb\xbfsize = "8G"\r\n')
    assert load_all(guests)["tiny"].size == "8G"


def test_two_guests_do_not_share_a_mac(guests: Path, write: Write) -> None:
    for name in ("tiny", "web1"):
        write(name, 'mac = "00:16:3E:00:00:01"\n')
    write("web2")
    specs = load_all(guests, ["web2"])
    assert list(specs) == ["web2"]
    assert "already that of tiny" in str(specs.broken)
    for name in ("tiny", "web1"):
        with pytest.raises(SpecError, match="already that of tiny"):
            load_all(guests, [name])


def test_two_guests_do_not_share_an_address_at_one_bridge(guests: Path, write: Write) -> None:
    keys = 'dhcp = false\naddress = ["192.168.1.10/24"]\ngateway = "192.168.1.1"\n'
    for name in ("tiny", "web1"):
        write(name, f'{keys}bridge = "xenbr0"\n')
    write("web2", f'{keys}bridge = "xenbr1"\n')
    specs = load_all(guests, ["web2"])
    assert list(specs) == ["web2"]
    assert "192.168.1.10 is already that of tiny" in str(specs.broken)


def test_variables_are_the_keys_and_the_options_of_xen_create_image() -> None:
    assert {"name", "size", "dist", "lvm", "role", "hostname", "dhcp"} <= known_variables()


def test_texts_of_the_command_line_become_values() -> None:
    assert parse_overrides(
        {"dhcp": "", "updates": "no", "vcpus": "2", "packages": "a, b,c", "dist": "lenny"}
    ) == {"dhcp": True, "updates": False, "vcpus": 2, "packages": ["a", "b", "c"], "suite": "lenny"}


def test_a_misspelt_variable_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        parse_overrides({"memroy": "1G"})
    assert "did you mean 'memory'?" in str(caught.value)


def test_a_secret_is_refused_on_the_command_line_and_not_repeated() -> None:
    for key in ("root_password_hash", "password"):
        with pytest.raises(SpecError) as caught:
            parse_overrides({key: "hunter2"})
        assert "hunter2" not in str(caught.value)


def test_the_same_thing_asked_for_twice_differently_is_refused() -> None:
    with pytest.raises(SpecError, match="both asked for"):
        parse_overrides({"dist": "etch", "suite": "lenny"})


def test_a_key_line_with_a_comma_in_it_stays_whole() -> None:
    line = 'from="a,b" ssh-ed25519 AAAA'
    assert parse_overrides({"authorized_keys": line}) == {"authorized_keys": [line]}


def test_the_shipped_guests_are_right() -> None:
    specs = load_all(ROOT / "guests")
    assert {"test-drbd", "montest", "trixie", "sysvinit", "pygrub", "pvh-grub", "noble"} <= set(
        specs
    )
    assert all(not spec.authorized_keys for spec in specs.values())
    assert specs["test-drbd"].packages == ("drbd-utils",)
    assert specs["montest"].bootstrap == "debootstrap"


def test_loading_without_keys_does_not_import_cryptography(
    guests: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    write("tiny")
    load_guest("tiny", guests_dir=guests)
    assert "cryptography" not in sys.modules
