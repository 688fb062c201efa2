"""Which mirror a spec means: the host's apt sources in both forms, URLs, short forms, files."""

from pathlib import Path

import pytest

from pipeline.errors import PipelineError, UsageError
from pipeline.mirror.apt_sources import complete_url, host_archive, read_host_sources, security_root
from pipeline.mirror.mirrors import Archive, find_archive, render_guest_sources, sources_of
from pipeline.suites import SUITES
from tests.specs import make_spec

ONE_LINE = """
# a comment
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://mirror.example.org/debian/ bookworm main
deb-src http://mirror.example.org/debian bookworm main
deb http://mirror.example.org/debian-security bookworm-security main # security
"""
DEB822 = """
Types: deb deb-src
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
Enabled: no
URIs: http://off.example.org/debian
Suites: sid
Components: main
"""


def test_both_forms_of_the_host_sources_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/notes.txt").write_text("deb http://no.example.org/debian x main")
    found = [(source.uri, source.suite) for source in read_host_sources(tmp_path)]
    assert found == [
        ("http://mirror.example.org/debian", "bookworm"),
        ("http://mirror.example.org/debian-security", "bookworm-security"),
        ("http://mirror.example.org/debian", "bookworm"),
        ("http://mirror.example.org/debian", "bookworm-updates"),
    ]


def test_the_other_distribution_is_sought_at_the_same_server(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    assert host_archive("debian", tmp_path) == "http://mirror.example.org/debian"
    assert host_archive("ubuntu", tmp_path) == "http://mirror.example.org/ubuntu"


def test_a_host_without_any_archive_is_told_to_name_a_mirror(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        host_archive("debian", tmp_path)
    assert "mirror=URL" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://monmiroir:9999/debian/", "http://monmiroir:9999/debian"),
        ("monmiroir:9999", "http://monmiroir:9999/debian"),
        ("monmiroir:9999/pub/debian", "http://monmiroir:9999/pub/debian"),
        ("file:/srv/debian", "file:/srv/debian"),
    ],
)
def test_the_classic_forms_of_a_mirror_work(given: str, url: str) -> None:
    assert complete_url(given, "debian") == url


def test_the_security_archive_lies_beside_the_main_one() -> None:
    root = "http://monmiroir:9999/debian"
    assert security_root(root, SUITES["bookworm"]) == "http://monmiroir:9999/debian-security"
    ubuntu = "http://monmiroir:9999/ubuntu"
    assert security_root(ubuntu, SUITES["noble"]) == ubuntu


def test_updates_and_security_can_be_left_out() -> None:
    archive = Archive("http://m/debian", "http://m/debian-security")
    assert [source.suite for source in sources_of(make_spec(), archive)] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
    ]
    bare = sources_of(make_spec(updates=False, security=False), archive)
    assert [source.suite for source in bare] == ["bookworm"]


def test_a_named_mirror_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('url = "http://monmiroir:9999/debian"\n')
    archive = find_archive(make_spec(mirror="lab"), tmp_path)
    root = "http://monmiroir:9999/debian"
    assert archive == Archive(root, f"{root}-security")


@pytest.mark.parametrize("text", ["", "url = 3\n", 'url = "http://m/debian"\nkey = "x"\n', "= ="])
def test_a_wrong_mirror_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.toml").write_text(text)
    with pytest.raises(UsageError, match=r"lab\.toml"):
        find_archive(make_spec(mirror="lab"), tmp_path)


def test_an_unknown_mirror_name_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('url = "http://m/debian"\n')
    with pytest.raises(UsageError) as caught:
        find_archive(make_spec(mirror="lap"), tmp_path)
    assert "lab" in caught.value.hint


def test_the_guest_gets_suite_names_and_no_password_of_the_builders_mirror() -> None:
    builder = Archive("http://me:secret@m/debian", "http://me:secret@m/debian-security")
    text = render_guest_sources(make_spec(mirror="http://m/debian"), builder)
    assert text.splitlines()[0] == "deb http://m/debian bookworm main"
    assert "secret" not in text
    assert "stable" not in text


def test_trixie_gets_the_deb822_form() -> None:
    spec = make_spec(suite="trixie", mirror="http://m/debian")
    text = render_guest_sources(spec, Archive("http://m/debian", "http://m/debian-security"))
    assert "Types: deb\nURIs: http://m/debian\nSuites: trixie\n" in text
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in text


def test_a_guest_mirror_of_its_own_wins() -> None:
    spec = make_spec(mirror="monmiroir:9999", guest_mirror="http://lab.example.org/debian")
    builder = Archive("http://monmiroir:9999/debian", "http://monmiroir:9999/debian-security")
    assert "monmiroir" not in render_guest_sources(spec, builder)
