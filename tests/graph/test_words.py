"""The command line: what is refused before anything runs, and how it says so."""

import json
from pathlib import Path

import pytest

from tests.workshop import Outcome, Workshop

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    guests = tmp_path / "guests"
    guests.mkdir()
    (guests / "defaults.toml").write_text("")
    (guests / "web1.toml").write_text('suite = "bookworm"\n')
    return Workshop(tmp_path / "output", guests)


def refused(outcome: Outcome) -> str:
    assert outcome.code == 2, outcome.said
    assert "Traceback" not in outcome.said
    return outcome.said


def test_an_unknown_guest_is_told_with_the_nearest_name(shop: Workshop) -> None:
    said = refused(shop.doit("build", "name=wep1"))
    assert "web1" in said


def test_a_misspelt_variable_is_told_with_the_nearest_one(shop: Workshop) -> None:
    said = refused(shop.doit("build", "name=web1", "siez=8G"))
    assert "siez" in said
    assert "size" in said


def test_a_variable_without_a_guest_asks_for_which(shop: Workshop) -> None:
    assert "name=" in refused(shop.doit("build", "size=8G"))


def test_all_mistakes_of_a_spec_come_at_once_and_nothing_runs(shop: Workshop) -> None:
    (shop.guests / "web1.toml").write_text(
        'suite = "bookwurm"\nsize = "4X"\nmac = "00:16"\nmemroy = "1G"\ngateway = "1.2.3"\n'
    )
    said = refused(shop.doit("build", "name=web1"))
    for word in ("web1.toml", "bookwurm", "bookworm", "4X", "00:16", "memroy", "memory", "1.2.3"):
        assert word in said
    assert not (shop.output / "store").exists()


@pytest.mark.parametrize("name", ["../web1", "-web1", "a/b", "web1;reboot", "", "snapshot1"])
def test_names_cannot_escape_or_inject(shop: Workshop, name: str) -> None:
    before = sorted(path.name for path in shop.guests.parent.iterdir())
    outcome = shop.doit("create", f"name={name}", "suite=bookworm")
    assert outcome.code in (2, 3), outcome.said
    after = sorted(path.name for path in shop.guests.parent.iterdir() if path.name != "output")
    assert after == [name for name in before if name != "output"]


def test_create_does_not_overwrite_a_spec(shop: Workshop) -> None:
    assert "exists already" in refused(shop.doit("create", "name=web1", "size=8G"))


def test_both_classic_command_lines_become_specs_and_fail_at_their_mirror_alone(
    shop: Workshop,
) -> None:
    """Where that mirror answers they build: tests/host/test_old_releases.py."""
    classic = ["dist=bookworm", "mirror=http://monmiroir:9999/debian/", "dhcp=", "size=4G"]
    older = ["debootstrap=", "dist=bookworm", "mirror=monmiroir:9999", "dhcp=", "size=4G"]
    for name, words in {"test-drbd": [*classic, "role=udev"], "montest": older}.items():
        outcome = shop.doit("create", f"hostname={name}", *words, ends=1)
        assert outcome.said.count("monmiroir:9999/debian/dists/bookworm/InRelease") == 1
        assert 'size = "4G"' in (shop.guests / f"{name}.toml").read_text()


def test_all_that_can_be_known_is_told_in_one_table_before_anything_is_made(
    shop: Workshop, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.built("test-drbd")  # the archive's state is there
    (tmp_path / "empty").touch()
    words = {
        "packages": "lesss,nosuchpkg-xyz",
        "kernel": "linux-image-amd65",
        "timezone": "Europe/Pariss",
        "locale": "de_DE.UTF8",
        "lvm": "VG-NOT-HERE",
        "root_password_file": str(tmp_path / "empty"),
    }
    bench = Workshop(workshop.output, shop.guests)
    given = ["suite=bookworm", *(f"{key}={text}" for key, text in words.items())]
    outcome = bench.doit("create", "name=web2", *given)
    assert outcome.code in (2, 3), outcome.said
    print(outcome.said)
    assert "error: web2: 7 reasons why it cannot be built; nothing was begun" in outcome.said
    assert outcome.said.count("| FAIL ") == 7
    for told in (
        *("lesss: bookworm has no such package in main", "did you mean 'less'?"),
        "nosuchpkg-xyz: bookworm has no such package",
        *("package linux-image-amd65: not in this suite", "did you mean 'linux-image-amd64'?"),
        *("no such zone: Europe/Pariss", "did you mean 'Europe/Paris'?"),
        *("no such locale: de_DE.UTF8", "did you mean 'de_DE.UTF-8'?", "root's password from"),
    ):
        assert told in outcome.said
    assert not (shop.guests / "web2.toml").exists()
    (shop.guests / "web2.toml").write_text(
        'suite = "bookworm"\nelements = ["timezone-local"]\ntimezone = "Europe/Pariss"\n'
    )
    for command in ("plan", "build"):
        outcome = bench.doit(command, "name=web2")
        assert outcome.code == 2
        assert "did you mean 'timezone-locale'?" in outcome.said
        assert "no such zone: Europe/Pariss" in outcome.said
    assert not (workshop.output / "logs/web2").exists()
    (shop.guests / "web2.toml").unlink()
    outcome = bench.doit("create", "name=web2", *given[:1], ends=0)
    assert bench.doit("delete", "name=web2", "yes=yes").code == 0


def test_a_password_in_a_mirrors_url_is_refused_and_not_repeated(shop: Workshop) -> None:
    said = refused(shop.doit("build", "name=web1", "mirror=http://me:Kanari3nvogel@m/debian"))
    assert "auth.conf.d" in said
    assert "Kanari3nvogel" not in said


def test_guests_lists_them_with_what_to_type_next(shop: Workshop) -> None:
    outcome = shop.doit("guests")
    assert outcome.code == 0
    assert "web1" in outcome.said
    assert "doit build name=NAME" in outcome.said


def test_why_explains_a_guest_that_was_never_built(shop: Workshop) -> None:
    outcome = shop.doit("why", "name=web1")
    assert outcome.code == 0
    assert "not built yet" in outcome.said
    assert "mirror will be built first" in outcome.said


def test_list_shows_every_stage_and_word_with_what_one_gets(shop: Workshop) -> None:
    outcome = shop.doit("list")
    assert outcome.code == 0
    names = [line.split()[0] for line in outcome.said.splitlines()]
    assert {"mirror", "base", "kernel", "rootfs", "image", "volume", "config"} <= set(names)
    assert {"build", "create", "check", "why", "guests", "test"} <= set(names)
    assert all(len(line.split()) > 2 for line in outcome.said.splitlines())


def test_events_tell_a_program_what_ran_and_what_failed(shop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    words = ["name=web1", "mirror=http://127.0.0.1:9/debian", f"events={file}"]
    assert shop.doit("build", *words).code == 1
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["event"] for one in events] == ["run started", "started", "ended", "run ended"]
    assert len({one["run"] for one in events}) == 1
    started, ended, last = events[1:]
    assert (started["stage"], started["guests"]) == ("mirror", ["web1"])
    assert started["reason"] == "not built yet"
    assert (ended["outcome"], ended["exit_code"], last["exit_code"]) == ("failed", 1, 1)
    assert "connection refused" in ended["error"]
    assert Path(ended["log"]).is_file()


def test_events_without_a_place_are_refused_before_anything_runs(shop: Workshop) -> None:
    said = refused(shop.doit("build", "name=web1", f"events={shop.output}/absent/e.jsonl"))
    assert "events=" in said and "No such file or directory" in said


def test_a_mirror_that_does_not_answer_is_one_clear_error(shop: Workshop) -> None:
    outcome = shop.doit("build", "name=web1", "mirror=http://127.0.0.1:9/debian", ends=1)
    assert "web1 mirror" in outcome.said
    assert "connection refused" in outcome.said
    assert "next:" in outcome.said
    assert list((shop.output / "scratch").iterdir()) == []


def test_the_plan_of_a_guest_on_volumes_is_refused_where_there_is_no_group(shop: Workshop) -> None:
    """Exit code 3, the whole plan before it; as JSON for programs."""
    outcome = shop.doit("plan", "name=web1", "lvm=no-such-group", "json=yes", ends=3)
    told = json.loads(outcome.said[outcome.said.index("{") : outcome.said.rindex("\n}") + 2])
    assert told["refusals"][0]["exit_code"] == 3
    assert [disk["path"] for disk in told["disks"]] == [
        "/dev/no-such-group/web1-disk",
        "/dev/no-such-group/web1-swap",
    ]
    assert all(stage["reason"] for stage in told["stages"])
    assert not (shop.output / "volumes").exists()


def test_the_proxy_refuses_what_cannot_be_in_our_words(shop: Workshop) -> None:
    said = refused(shop.doit("mirror-proxy", "proxy=apt-cacher-ng", "port=40000"))
    assert "mirror-proxy: apt-cacher-ng cannot listen on ports above 32767" in said
    assert "another port= or proxy=" in said
    assert "pydantic" not in said


def test_prove_cfg_wants_a_configuration_that_it_can_read(shop: Workshop, tmp_path: Path) -> None:
    assert "which configuration" in refused(shop.doit("prove-cfg"))
    assert "No such file" in refused(shop.doit("prove-cfg", "cfg=/nonexistent.cfg"))
    path = tmp_path / "web1.cfg"
    path.write_text("no configuration at all\n")
    assert "web1.cfg: line 1" in refused(shop.doit("prove-cfg", f"cfg={path}"))
    assert "4.17" in refused(shop.doit("prove-cfg", f"cfg={path}", "prove_xen=9.9"))


def test_what_is_about_one_guest_is_refused_for_an_appliance_and_told_of_it_alone(
    shop: Workshop,
) -> None:
    appliances = shop.guests.with_name("appliances")
    appliances.mkdir()
    (appliances / "pair.toml").write_text('[members.a]\nspec="web1"\n[members.b]\nspec="web1"\n')

    said = refused(shop.doit("prove", "appliance=pair", "prove_with=xl", "json=yes"))

    told = json.loads(said[said.index("{") : said.rindex("\n}") + 2])
    assert told["guest"] == "pair" and "guests" not in told
    (failure,) = told["failures"]
    assert failure["message"] == "prove_with=xl is about one guest: pair is an appliance"
    assert "name=pair-a" in failure["hint"]
