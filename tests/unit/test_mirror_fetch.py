"""Fetching without a network: local files, the words for errors, passwords from apt's files."""

import hashlib
from pathlib import Path

import pytest
import requests
import urllib3.exceptions

from pipeline.errors import EnvironmentFault, UsageError, VerificationError
from pipeline.mirror.credentials import find_credentials, refuse_credentials, without_credentials
from pipeline.mirror.fetch import NotFound, fetch_bytes, fetch_file
from pipeline.mirror.trouble import MirrorTrouble, name_trouble

AUTH = """# of the lab
machine http://lab.example.org:9999/private login me password one
machine http://lab.example.org login you password two
machine secure.example.org login us password three
"""


def test_a_local_file_is_read_and_checked(tmp_path: Path) -> None:
    source = tmp_path / "a.deb"
    source.write_bytes(b"bytes")
    digest = hashlib.sha256(b"bytes").hexdigest()
    target = fetch_file(f"file:{source}", tmp_path / "cache/a", size=5, sha256=digest)
    assert target.read_bytes() == b"bytes" == fetch_bytes(f"file://{source}")


@pytest.mark.parametrize(("size", "digest"), [(5, "0" * 64), (4, "")])
def test_a_local_file_with_wrong_bytes_leaves_nothing(
    tmp_path: Path, size: int, digest: str
) -> None:
    source = tmp_path / "a.deb"
    source.write_bytes(b"bytes")
    digest = digest or hashlib.sha256(b"bytes").hexdigest()
    with pytest.raises(VerificationError, match="wrong bytes"):
        fetch_file(f"file:{source}", tmp_path / "cache/a", size=size, sha256=digest)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_local_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing: not found"):
        fetch_bytes(f"file:{tmp_path}/nothing")


@pytest.mark.parametrize(
    ("error", "reason", "is_passing"),
    [
        (requests.exceptions.SSLError("x"), "TLS certificate", False),
        (requests.ReadTimeout("x"), "in time", True),
        (requests.ConnectionError("[Errno 111] Connection refused"), "connection refused", True),
        (requests.ConnectionError("NameResolutionError(...)"), "cannot be resolved", True),
        (urllib3.exceptions.IncompleteRead(1, 2), "cut short", True),
        (requests.ConnectionError("http://me:secret@m/ broke"), "ConnectionError", True),
    ],
)
def test_network_errors_are_put_in_words_that_hold_no_password(
    error: Exception, reason: str, is_passing: bool
) -> None:
    found = name_trouble(error, "http://me:secret@m/debian")
    assert reason in found.brief and isinstance(found, MirrorTrouble) is is_passing
    assert "secret" not in f"{found.brief} {found.hint}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@m:9999/debian", "http://m:9999/debian"),
        ("http://m/debian", "http://m/debian"),
        ("file:/srv/debian", "file:/srv/debian"),
        ("http://m/a@b", "http://m/a@b"),
    ],
)
def test_a_url_is_shown_without_user_and_password(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_url_with_a_user_is_refused_without_being_quoted() -> None:
    refuse_credentials("http://m/a@b", where="mirror")
    with pytest.raises(UsageError) as caught:
        refuse_credentials("http://me:secret@m/debian", where="mirror")
    assert "secret" not in f"{caught.value.brief} {caught.value.hint}"
    assert caught.value.brief.startswith("mirror http://m/debian: ")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://lab.example.org:9999/private/dists", ("me", "one")),
        ("http://lab.example.org:9999/debian", ("you", "two")),
        ("http://lab.example.org/debian", ("you", "two")),
        ("https://lab.example.org/debian", None),
        ("https://secure.example.org/debian", ("us", "three")),
        ("http://secure.example.org/debian", None),
        ("http://elsewhere.example.org/debian", None),
        ("http://notlab.example.org/debian", None),
    ],
)
def test_apts_auth_conf_is_read_by_apts_rules(
    tmp_path: Path, url: str, found: tuple[str, str] | None
) -> None:
    (tmp_path / "auth.conf").write_text(AUTH)
    assert find_credentials(url, tmp_path) == found


def test_the_files_of_auth_conf_d_count_too_and_others_there_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "auth.conf.d"
    folder.mkdir()
    (folder / "a.conf").write_text("machine m login a password b\n")
    (folder / "b.bak").write_text("machine n login a password b\n")
    assert find_credentials("https://m/debian", tmp_path) == ("a", "b")
    assert find_credentials("https://n/debian", tmp_path) is None


def test_a_broken_auth_file_is_named_but_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "auth.conf").write_text("machine m login a pasword secret\n")
    with pytest.raises(EnvironmentFault) as caught:
        find_credentials("https://m/debian", tmp_path)
    assert "auth.conf: line 1" in caught.value.brief and "secret" not in caught.value.brief
