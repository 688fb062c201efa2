"""Keys that sign: made once, read back, refused in one line."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentFault, PipelineError, UsageError
from pipeline.supply.keys import ROLES, has_keys, load_signer, make_key, public_key, read_public_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site's keys, one of them, without a passphrase."""
    keys = tmp_path / "keys"
    make_key(keys, "statements", None)
    return keys


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("open sesame\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("role", ROLES)
def test_what_a_key_signs_its_public_half_verifies(
    tmp_path: Path, passphrase: Path, role: str
) -> None:
    keys = tmp_path / "keys"
    assert role in ROLES
    make_key(keys, role, b"open sesame")
    signature = load_signer(keys, role, passphrase).sign(b"what is said")
    public_key(keys, role).verify_signature(signature, b"what is said")
    assert b"ENCRYPTED" in (keys / f"{role}.pem").read_bytes()


def test_nobody_else_reads_them(folder: Path) -> None:
    assert has_keys(folder) and not has_keys(folder, "root")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"statements.pem": 0o600, "statements.pub": 0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_key_is_never_overwritten(folder: Path) -> None:
    before = (folder / "statements.pem").read_bytes()
    with pytest.raises(UsageError, match="there already"):
        make_key(folder, "statements", None)
    assert (folder / "statements.pem").read_bytes() == before


def open_to_all(folder: Path, _passphrase: Path) -> None:
    (folder / "statements.pem").chmod(0o644)


def no_key(folder: Path, _passphrase: Path) -> None:
    (folder / "statements.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n")


def a_link(folder: Path, _passphrase: Path) -> None:
    (folder / "statements.pem").rename(folder / "other")
    (folder / "statements.pem").symlink_to("other")


def gone(folder: Path, _passphrase: Path) -> None:
    (folder / "statements.pem").unlink()


def encrypted(folder: Path, _passphrase: Path) -> None:
    gone(folder, _passphrase)
    make_key(folder, "statements", b"another")


@pytest.mark.parametrize(
    ("change", "with_passphrase", "kind", "words"),
    [
        (open_to_all, False, EnvironmentFault, "other users may read"),
        (no_key, False, UsageError, "this is no key"),
        (a_link, False, PipelineError, "no plain file"),
        (gone, False, UsageError, "no such key"),
        (encrypted, False, UsageError, "has a passphrase"),
        (encrypted, True, UsageError, "the passphrase is another one"),
    ],
)
def test_what_is_no_key_is_told_in_a_line(
    folder: Path,
    passphrase: Path,
    change: Callable[[Path, Path], None],
    with_passphrase: bool,
    kind: type[PipelineError],
    words: str,
) -> None:
    change(folder, passphrase)
    with pytest.raises(kind, match=words):
        load_signer(folder, "statements", passphrase if with_passphrase else None)


def test_a_passphrase_that_all_may_read_is_refused(folder: Path, passphrase: Path) -> None:
    passphrase.chmod(0o644)
    with pytest.raises(EnvironmentFault, match="any user may read"):
        load_signer(folder, "statements", passphrase)


def test_a_public_key_is_an_ed25519_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no public key"):
        read_public_key(folder / "statements.pem")
    with pytest.raises(UsageError, match="no such key"):
        read_public_key(tmp_path / "none.pub")
    assert read_public_key(folder / "statements.pub") == public_key(folder, "statements")
