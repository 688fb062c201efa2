"""Mirrors of real machines: security elsewhere, mirror+file, vendors; what the guest gets."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.mirror.apt_sources import host_archive, host_security, read_host_sources
from pipeline.mirror.mirrors import Archive, find_archive, render_guest_sources
from pipeline.suites import SUITES
from tests.specs import make_spec

BOOKWORM = SUITES["bookworm"]


def write_list(folder: Path, *lines: str) -> None:
    (folder / "sources.list").write_text("".join(f"deb {line}\n" for line in lines))


def test_the_hosts_security_archive_may_be_on_another_server(tmp_path: Path) -> None:
    write_list(
        tmp_path,
        "http://near.example.org/debian bookworm main",
        "http://security.example.org/debian-security bookworm-security main",
    )
    assert host_security(BOOKWORM, tmp_path) == "http://security.example.org/debian-security"


def test_without_a_security_source_it_is_sought_beside_the_main_archive(tmp_path: Path) -> None:
    write_list(tmp_path, "http://near.example.org/debian bookworm main")
    assert host_security(BOOKWORM, tmp_path) == "http://near.example.org/debian-security"


def test_a_vendors_repository_is_not_taken_for_the_distribution(tmp_path: Path) -> None:
    write_list(
        tmp_path,
        "https://vendor.example.org/linux/debian bookworm stable",
        "cdrom:/debian bookworm main",
        "http://near.example.org/debian bookworm main",
    )
    assert host_archive("debian", tmp_path) == "http://near.example.org/debian"


def test_the_mirror_file_of_a_cloud_image_is_followed(tmp_path: Path) -> None:
    listed = tmp_path / "debian.list.txt"
    listed.write_text("# nearest first\nhttps://near.example.org/debian/\tpriority:1\n\n")
    write_list(tmp_path, f"mirror+file://{listed} bookworm main")
    assert [source.uri for source in read_host_sources(tmp_path)] == [
        "https://near.example.org/debian"
    ]


@pytest.mark.parametrize("key", ["url", "security_url"])
def test_a_password_in_a_mirror_file_is_refused(tmp_path: Path, key: str) -> None:
    urls = {"url": "http://m/debian", key: "http://me:secret@m/debian"}
    (tmp_path / "lab.toml").write_text("".join(f'{k} = "{v}"\n' for k, v in urls.items()))
    with pytest.raises(UsageError) as caught:
        find_archive(make_spec(mirror="lab"), tmp_path)
    assert "secret" not in caught.value.brief and "auth.conf" in caught.value.brief


def test_a_mirror_file_names_its_keyring_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('url = "http://m/debian"\nkeyring = "lab.gpg"\n')
    (tmp_path / "lab.gpg").touch()
    assert find_archive(make_spec(mirror="lab"), tmp_path).keyring == str(tmp_path / "lab.gpg")


def test_a_guest_mirror_may_be_a_name_in_mirrors(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(
        'url = "http://lab.example.org/debian"\nsecurity_url = "http://sec.example.org/deb-sec/"\n'
    )
    spec = make_spec(mirror="monmiroir:9999", guest_mirror="lab")
    lines = render_guest_sources(spec, Archive("http://m/d", "http://m/s"), tmp_path).splitlines()
    assert lines[0] == "deb http://lab.example.org/debian bookworm main"
    assert lines[2] == "deb http://sec.example.org/deb-sec bookworm-security main"


def test_a_guest_mirror_wins_also_over_a_folder(tmp_path: Path) -> None:
    spec = make_spec(mirror="file:/srv/debian", guest_mirror="http://lab.example.org/debian")
    text = render_guest_sources(spec, Archive("file:/srv/debian", "file:/srv/debian-security"))
    assert "deb http://lab.example.org/debian bookworm main\n" in text
    assert "file:" not in text


def test_a_password_does_not_get_into_the_guests_sources(tmp_path: Path) -> None:
    spec = make_spec(mirror="http://m/debian").model_copy(
        update={"guest_mirror": "http://me:secret@lab/debian"}
    )
    with pytest.raises(UsageError):
        render_guest_sources(spec, Archive("http://m/debian", "http://m/debian-security"))
