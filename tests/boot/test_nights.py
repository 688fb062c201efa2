"""Some nights of three golden images, with real packages, each new version booted under Xen.

Night 1 publishes three guests. Before night 2 the mirror gets a security update of a package that
two of them have. Before night 3 nothing happens but that the mirror is signed again. Night 4 brings
another update, and a mistake in a guest's file. In night 5 the mirror is down; in night 6 it is
back, the mistake is mended, and there is room for little. No guest has a key of anybody's.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.artifact.sums import read_sum_file
from tests.boot.faults import lose_root
from tests.conftest import require
from tests.host.archives import missing_tools
from tests.night_mirror import night_mirror
from tests.night_site import Follower, NightSite, Told
from tests.turns import in_turn
from tests.workshop import Outcome, Workshop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.build,
    pytest.mark.timeout(6000),
    in_turn("boot", "nights"),
]

GUESTS = {"old": 'init = "sysvinit"\ntype = "pv"\n', "pv": 'type = "pv"\n', "pvh": ""}
BOTH = ("pv", "pvh")
LESS = 'packages = ["less"]\n'
NIGHTLY = 'guests = ["old", "pv", "pvh"]\nstable_after = 2\nkeep = 2\n'
CVE, CVE_2 = "CVE-2026-99999", "CVE-2026-99998"
NOTE = "usr/share/less/NOTE"


@dataclass
class Story:
    """What happened: the nights by their number, other commands by what they were for."""

    site: NightSite
    host: Follower
    nights: list[Told] = field(default_factory=list)
    said: dict[str, Outcome] = field(default_factory=dict)
    updates: list[str] = field(default_factory=list)
    golden: dict[str, str] = field(default_factory=dict)
    kept: dict[str, set[str]] = field(default_factory=dict)
    proofs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def night(self, number: int) -> Told:
        return self.nights[number - 1]

    def play(self) -> None:
        site, mirror = self.site, self.site.mirror
        for name, text in GUESTS.items():
            site.write(f"guests/{name}.toml", text if name == "old" else text + LESS)
        site.write("nightly.toml", NIGHTLY)
        self.said["keys"] = site.doit("keys")
        self._pass_a_night()
        trust = f"root={self.host.root_of_trust}"
        words = ("install", "name=pv", f"from={self.host.server.url}", "channel=nightly", trust)
        self._follow("install", *words)
        self.proofs = {name: site.read_proof(name) for name in GUESTS}

        entry = f"{CVE}: a file name could run commands."
        self.updates.append(mirror.add_update("less", entry, files={NOTE: b"mended\n" * 500}))
        self._pass_a_night()
        self._follow("update", "update")
        self.said["verify"] = site.doit("verify", "name=pvh")

        mirror.publish()
        self._pass_a_night()

        self.updates.append(mirror.add_update("less", f"{CVE_2}: another one.", urgency="low"))
        self._make_a_mistake()
        self._pass_a_night()
        self.said["rollback"] = site.doit("publish", "name=pv", "rollback=yes")
        self.rolled_back = site.links()["pv"]

        mirror.server.stop()
        self._pass_a_night()
        mirror.server.start()

        site.write("guests/old.toml", GUESTS["old"])
        site.write("nightly.toml", f'{NIGHTLY}keep_size = "1M"\n')
        self._pass_a_night()
        self.said["promote"] = site.doit("promote", "name=pvh")
        self.promoted = site.links()["pvh"]

    def _pass_a_night(self) -> None:
        told = self.site.night()
        self.nights.append(told)
        print(
            f"night {len(self.nights)}: {told.outcome.seconds:.0f} s, {told.verdicts}", flush=True
        )

    def _follow(self, what: str, *words: str) -> None:
        """What a host does after a night, and what it has then."""
        self.said[what] = self.host.doit(what, *words)
        self.golden[what] = self.site.golden_digest("pv")
        self.kept[what] = self.host.kept()

    def _make_a_mistake(self) -> None:
        """A kernel of the guest's own, with an initrd that was made for another disk."""
        kernel, initrd = self.site.folder / "vmlinuz", self.site.folder / "initrd.img"
        built = self.site.output / "guests/old"
        shutil.copyfile(built / "vmlinuz", kernel)
        initrd.write_bytes(lose_root((built / "initrd.img").read_bytes(), "/dev/xvdz9"))
        keys = f'kernel = "{kernel}"\ninitrd = "{initrd}"\ncmdline = "rootdelay=5"\n'
        self.site.write("guests/old.toml", GUESTS["old"] + keys)


@pytest.fixture(scope="module")
def story(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    require(shutil.which("qemu-system-x86_64") is not None, "qemu-system-x86 is not installed")
    require(not missing_tools(), f"needs {', '.join(missing_tools())}")
    folder = tmp_path_factory.mktemp("nights")
    with night_mirror(folder, workshop.output, "less") as mirror:
        site = NightSite(folder / "site", workshop.output, mirror)
        host = Follower(folder / "host", site)
        with host.server:
            story = Story(site, host)
            story.play()
        yield story
    shutil.rmtree(folder)


def test_the_first_night_builds_proves_and_publishes_every_guest(story: Story) -> None:
    night = story.night(1)
    assert night.outcome.code == 0, night.outcome.said
    assert set(night.verdicts.values()) == {"published"}
    for name in GUESTS:
        (version,) = night.versions[name]
        assert night.links[name]["current"] == version
        assert night.guest(name)["version"] == version
        assert night.guest(name)["before"] == ""
        assert night.guest(name)["proof"]["verdict"] == "proven"


def test_a_golden_image_without_any_key_answers_every_question(story: Story) -> None:
    for name in GUESTS:
        counted = story.night(1).guest(name)["proof"]
        assert (counted["failed"], counted["unasked"]) == ([], 0), counted
        assert counted["held"] >= 30
        proof = story.proofs[name]
        assert proof["injected"]["path"] == "/root/.ssh/authorized_keys"
        assert proof["unchanged"] is True


def test_a_security_update_is_named_with_its_entry_its_cve_its_files_and_its_sizes(
    story: Story,
) -> None:
    night = story.night(2)
    assert night.outcome.code == 0, night.outcome.said
    for name in BOTH:
        guest = night.guest(name)
        assert guest["verdict"] == "published"
        assert guest["before"] == story.night(1).links[name]["current"] != guest["version"]
        assert night.links[name]["current"] == guest["version"]
        (change,) = guest["packages"]
        assert (change["kind"], change["source"]) == ("upgraded", "less")
        assert change["after"] == story.updates[0] != change["before"]
        (entry,) = change["entries"]
        assert f"{CVE}: a file name could run commands." in entry["text"]
        assert (entry["version"], entry["urgency"]) == (change["after"], "high")
        assert guest["cves"] == change["cves"] == [CVE]
        files = {one["path"]: one for one in guest["files"]["listed"]}
        note = files[f"/{NOTE}"]
        assert (note["kind"], note["owner"], note["bytes_after"]) == ("added", "less", 3500)
        assert files["/var/lib/dpkg/status"]["kind"] == "changed"
        less = next(one for one in guest["sizes"] if one["name"] == "less")
        assert less["change"] == "changed" and less["size_bytes"] > 3500
        assert guest["metrics"]["image_bytes"] > 0 < guest["bytes_before"]


def test_a_host_follows_by_a_tenth_of_the_image_and_has_the_same_bits(story: Story) -> None:
    for what in ("keys", "install", "update"):
        assert story.said[what].code == 0, story.said[what].said
    for what in ("install", "update"):
        assert story.golden[what] in story.kept[what], what
    assert story.golden["install"] != story.golden["update"]
    whole, changed = story.host.fetched["install"], story.host.fetched["update"]
    print(f"{whole} bytes for the image of night 1, {changed} bytes from there to night 2")
    assert changed <= whole / 10


def test_what_a_night_published_is_described_signed_and_verified(story: Story) -> None:
    assert story.said["verify"].code == 0, story.said["verify"].said
    version = story.site.published("pvh", "current")
    for name in ("sbom.cdx.json", "provenance.dsse.json", "test-result.dsse.json"):
        assert json.loads((version / name).read_bytes()), name


def test_the_report_is_a_page_a_table_and_a_mail_that_name_the_cve(story: Story) -> None:
    night = story.night(2)
    folder = story.site.output / "reports" / night.report["name"]
    for name in ("index.html", "report.txt"):
        text = (folder / name).read_text()
        for wanted in (CVE, "less", story.updates[0], "pvh"):
            assert wanted in text, f"{wanted} in {name}"


def test_a_guest_whose_packages_did_not_change_gets_no_version(story: Story) -> None:
    for number in (2, 3):
        guest = story.night(number).guest("old")
        assert guest["verdict"] == "unchanged"
        assert guest["packages"] == []
        assert story.night(number).versions["old"] == story.night(1).versions["old"]
    night = story.night(3)
    assert set(night.verdicts.values()) == {"unchanged"}
    assert night.outcome.code == 0, night.outcome.said
    assert night.versions == story.night(2).versions


def test_a_wrong_root_fails_its_guest_alone_and_its_channel_stays(story: Story) -> None:
    night = story.night(4)
    assert night.verdicts == {"old": "failed", "pv": "published", "pvh": "published"}
    assert night.outcome.code == 5, night.outcome.said
    assert night.links["old"] == story.night(3).links["old"]
    failure = night.guest("old")["failure"]
    assert failure["stage"] == "prove"
    assert "root= does not name the disk's vdev: it says /dev/xvdz9" in str(failure)
    assert "root device /dev/xvdz9 did not appear" in failure["console"]
    for name in BOTH:
        assert night.links[name]["current"] not in story.night(3).versions[name]


def test_stable_follows_after_two_good_nights(story: Story) -> None:
    first, third, fourth = story.night(1), story.night(3), story.night(4)
    assert "stable" not in first.links["pv"]
    assert third.links["pv"]["stable"] in third.versions["pv"]
    assert fourth.links["pv"]["stable"] == third.links["pv"]["current"]
    assert fourth.links["old"]["stable"] == first.links["old"]["current"]
    assert story.said["promote"].code == 0, story.said["promote"].said
    assert story.promoted["stable"] == story.promoted["current"]


def test_only_what_is_to_be_kept_and_what_a_channel_needs_is_there(story: Story) -> None:
    for number, night in enumerate(story.nights, start=1):
        for name in GUESTS:
            assert set(night.links[name].values()) <= set(night.versions[name]), number
    assert len(story.night(4).versions["pv"]) == 2
    sixth = story.night(6)
    for name in GUESTS:
        assert set(sixth.versions[name]) == set(sixth.links[name].values())


def test_what_was_rolled_back_does_not_come_again(story: Story) -> None:
    assert story.said["rollback"].code == 0, story.said["rollback"].said
    older = story.night(3).links["pv"]["current"]
    assert story.rolled_back["current"] == older
    assert story.night(6).links["pv"]["current"] == older


def test_without_its_mirror_a_night_leaves_everything_as_it_is(story: Story) -> None:
    night = story.night(5)
    assert set(night.verdicts.values()) == {"broken"}
    assert night.outcome.code == 3, night.outcome.said
    assert night.versions == story.night(4).versions
    assert {name: night.links[name] for name in ("old", "pvh")} == {
        name: story.night(4).links[name] for name in ("old", "pvh")
    }
    assert story.site.mirror.server.url in night.outcome.said
    assert "refused" in night.outcome.said
    assert "Traceback" not in night.outcome.said


def test_a_mended_guest_is_what_it_was_and_nothing_is_left_over(story: Story) -> None:
    assert story.night(6).guest("old")["verdict"] == "unchanged"
    assert story.night(6).outcome.code == 0, story.night(6).outcome.said
    output = story.site.output
    assert os.listdir(output / "scratch") == []
    for name, versions in story.site.versions().items():
        left = {path.name for path in (output / "published" / name).iterdir()}
        assert left <= {*versions, "current", "stable", "channels.json"}
        for version in versions:
            assert read_sum_file(story.site.published(name, version) / "FSVERITY")
