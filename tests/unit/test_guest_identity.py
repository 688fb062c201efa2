"""What makes one guest itself: hosts, fstab, keys, passwords; and that it is kept."""

from pathlib import Path

import pytest

from pipeline.errors import PipelineError, UsageError, VerificationError
from pipeline.guest.identity import (
    identity_files,
    keep_identity,
    render_fstab,
    render_hosts,
    render_known_hosts,
)
from pipeline.guest.passwords import hash_password, read_root_hash, replace_root_password
from tests.specs import make_spec

SHADOW = "root:*:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\n"


def test_hosts_puts_the_fqdn_first_so_that_hostname_f_finds_it() -> None:
    first = render_hosts(make_spec(hostname="web1.example.org")).splitlines()[0]
    assert first == "127.0.0.1 web1.example.org web1 localhost"


def test_a_short_host_name_stands_once() -> None:
    assert render_hosts(make_spec()).splitlines()[0] == "127.0.0.1 web1 localhost"


def test_extra_host_lines_come_last() -> None:
    assert render_hosts(make_spec(hosts=["10.0.0.9 nas"])).splitlines()[-1] == "10.0.0.9 nas"


def test_fstab_has_swap_only_when_there_is_some() -> None:
    assert "/dev/xvda2 none swap sw 0 0" in render_fstab(make_spec(swap="64M"))
    assert "swap" not in render_fstab(make_spec(swap="0"))


def test_old_inits_mount_pts_and_shm_from_fstab() -> None:
    text = render_fstab(make_spec(init="sysvinit"))
    assert "devpts /dev/pts devpts" in text
    assert "tmpfs /dev/shm tmpfs" in text


def test_identity_is_made_once_and_kept_for_later_builds(tmp_path: Path) -> None:
    first = keep_identity(tmp_path / "web1", make_spec())
    assert keep_identity(tmp_path / "web1", make_spec()) == first
    other = keep_identity(tmp_path / "web2", make_spec())
    assert other.machine_id != first.machine_id
    assert other.host_keys != first.host_keys
    assert (tmp_path / "web1").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "web1/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600


def test_a_suite_with_an_old_openssh_gets_only_rsa_in_pem_form(tmp_path: Path) -> None:
    kept = keep_identity(tmp_path / "old", make_spec(suite="wheezy", security=False))
    assert sorted(kept.host_keys) == ["ssh_host_rsa_key", "ssh_host_rsa_key.pub"]
    assert kept.host_keys["ssh_host_rsa_key"].startswith(b"-----BEGIN RSA PRIVATE KEY-----")


def test_a_new_guest_gets_no_rsa_key_but_one_that_had_it_keeps_it(tmp_path: Path) -> None:
    kept = keep_identity(tmp_path / "new", make_spec())
    private = sorted(name for name in kept.host_keys if not name.endswith(".pub"))
    assert private == ["ssh_host_ecdsa_key", "ssh_host_ed25519_key"]
    before = keep_identity(tmp_path / "aged", make_spec(suite="wheezy", security=False))
    after = keep_identity(tmp_path / "aged", make_spec())
    assert after.host_keys.items() > before.host_keys.items()


def test_private_host_keys_are_readable_by_root_only(tmp_path: Path) -> None:
    kept = keep_identity(tmp_path / "web1", make_spec())
    files = {
        entry.path: entry
        for entry in identity_files(make_spec(), kept, shadow=SHADOW, root_hash="")
    }
    assert files["/etc/ssh/ssh_host_ecdsa_key"].mode == 0o600
    assert files["/etc/shadow"].mode == 0o640
    assert files["/etc/machine-id"].content == f"{kept.machine_id}\n".encode()
    assert "/root/.ssh/authorized_keys" not in files


def test_known_hosts_names_the_guest_by_name_and_address(tmp_path: Path) -> None:
    spec = make_spec(hostname="web1.example.org", address=["192.168.1.10/24"])
    lines = render_known_hosts(spec, keep_identity(tmp_path / "web1", spec)).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("web1.example.org,web1,192.168.1.10 ") for line in lines)


def test_root_is_locked_unless_a_hash_is_given() -> None:
    assert replace_root_password(SHADOW, "").startswith("root:*:20000:")
    assert replace_root_password(SHADOW, "$6$a$b").startswith("root:$6$a$b:20000:")


def test_an_image_without_root_is_an_error() -> None:
    with pytest.raises(PipelineError):
        replace_root_password("daemon:*:1::::::\n", "")


@pytest.mark.parametrize(
    ("method", "prefix"), [("yescrypt", "$y$"), ("sha512", "$6$"), ("md5", "$1$")]
)
def test_every_hash_that_a_suite_needs_can_be_made(method: str, prefix: str) -> None:
    one, other = hash_password(b"secret", method), hash_password(b"secret", method)
    assert one.startswith(prefix)
    assert one != other


@pytest.mark.parametrize("content", ["", "\n", "two\nlines\n", "nul\0byte"])
def test_a_password_file_must_hold_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "password").write_text(content)
    with pytest.raises(UsageError):
        read_root_hash(make_spec(root_password_file=str(tmp_path / "password")), tmp_path)


def test_a_missing_password_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        read_root_hash(make_spec(root_password_file=str(tmp_path / "nowhere")), tmp_path)


@pytest.mark.parametrize("name", ["machine-id", "ssh_host_ecdsa_key", "ssh_host_ed25519_key.pub"])
@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "folder"])
def test_a_damaged_identity_is_refused_and_not_made_anew(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    keep_identity(tmp_path / "web1", make_spec())
    path = tmp_path / "web1" / name
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(VerificationError, match="is damaged"):
        keep_identity(tmp_path / "web1", make_spec())


def test_a_lost_public_half_is_written_again_and_a_lost_private_one_is_told(tmp_path: Path) -> None:
    first = keep_identity(tmp_path / "web1", make_spec())
    (tmp_path / "web1/ssh_host_ecdsa_key.pub").unlink()
    assert keep_identity(tmp_path / "web1", make_spec()) == first
    (tmp_path / "web1/ssh_host_ecdsa_key").unlink()
    with pytest.raises(VerificationError, match="is damaged"):
        keep_identity(tmp_path / "web1", make_spec())
