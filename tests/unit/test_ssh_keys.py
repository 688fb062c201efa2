"""authorized_keys: sound public keys pass, everything else is named and refused."""

import base64
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SpecError, WrongValueError
from pipeline.spec import read_authorized_keys
from pipeline.spec.ssh_keys import check_key_line, is_key_path
from pipeline.suites import SUITES

BOOKWORM = SUITES["bookworm"]


def _public(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


@cache
def ed25519_line() -> str:
    return _public(ed25519.Ed25519PrivateKey.generate()) + " admin@example.org"


@cache
def rsa_line(bits: int) -> str:
    return _public(rsa.generate_private_key(65537, bits)) + " admin@example.org"


def named_blob(key_type: str) -> str:
    blob = len(key_type).to_bytes(4, "big") + key_type.encode() + bytes(40)
    return f"{key_type} {base64.b64encode(blob).decode()}"


def refusal(line: str, suite: str = "bookworm") -> str:
    with pytest.raises(WrongValueError) as caught:
        check_key_line(line, SUITES[suite])
    return caught.value.message


def test_sound_keys_of_every_kind_pass() -> None:
    ecdsa = _public(ec.generate_private_key(ec.SECP256R1()))
    for line in (ed25519_line(), rsa_line(2048), ecdsa, named_blob("sk-ssh-ed25519@openssh.com")):
        assert check_key_line(line, BOOKWORM) == line


@pytest.mark.parametrize(
    "options",
    [
        *("no-pty", "restrict,pty", 'from="10.0.0.0/8,*.example.org"'),
        'command="/bin/echo \\"hello, you\\"",no-agent-forwarding',
        'environment="A=b c",cert-authority',
    ],
)
def test_options_before_a_key_are_understood(options: str) -> None:
    line = f"{options} {ed25519_line()}"
    assert check_key_line(line, BOOKWORM) == line


def test_an_option_that_sshd_does_not_know_is_refused() -> None:
    assert "no option 'no-fun'" in refusal(f"no-fun {ed25519_line()}")


def test_weak_and_wrong_keys_are_refused_with_their_reason() -> None:
    assert refusal(rsa_line(1024)) == "an RSA key of 1024 bits is too short"
    assert refusal(named_blob("ssh-dss")) == "DSA keys are broken"
    assert "certificate" in refusal(named_blob("ssh-ed25519-cert-v01@openssh.com"))
    assert "damaged" in refusal("ssh-ed25519 AAAA")
    assert "damaged" in refusal("ssh-ed25519 " + rsa_line(2048).split()[1])
    assert "damaged" in refusal("ssh-rsa !!!!")
    assert "not a public SSH key" in refusal("hello world")
    assert "control characters" in refusal(ed25519_line() + "\x07")


def test_keys_that_the_suite_is_too_old_for_are_refused() -> None:
    assert "knows no ed25519" in refusal(ed25519_line(), "wheezy")
    assert "knows no FIDO" in refusal(named_blob("sk-ssh-ed25519@openssh.com"), "buster")
    assert "knows no ECDSA" in refusal(_public(ec.generate_private_key(ec.SECP256R1())), "squeeze")
    assert check_key_line(rsa_line(2048), SUITES["lenny"])


def test_a_private_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    secret = (
        ed25519.Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        .decode()
    )
    path = tmp_path / "id_ed25519"
    path.write_text(secret)
    with pytest.raises(SpecError) as caught:
        read_authorized_keys([str(path)], "bookworm", source="guests/web1.toml")
    assert f"{path} is a private key" in str(caught.value)
    assert secret.splitlines()[1] not in str(caught.value) + caught.value.details


def test_a_file_is_read_line_by_line_and_every_fault_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# admins\n\n{ed25519_line()}\nrubbish here\n{named_blob('ssh-dss')}\n")
    with pytest.raises(SpecError) as caught:
        read_authorized_keys([str(path)], "bookworm", source="guests/web1.toml")
    messages = [problem.message for problem in caught.value.problems]
    assert [f"{path}:{number}" in message for number, message in zip((4, 5), messages, strict=True)]
    assert len(messages) == 2


def test_lines_and_files_together_give_each_key_once(tmp_path: Path) -> None:
    path = tmp_path / "admin.pub"
    path.write_text(f"{ed25519_line()}\n{rsa_line(2048)}\n")
    lines = read_authorized_keys([ed25519_line(), str(path)], "bookworm", source="x")
    assert lines == (ed25519_line(), rsa_line(2048))


def test_missing_empty_and_binary_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    names = ["absent", "empty", "binary", "."]
    with pytest.raises(SpecError) as caught:
        read_authorized_keys([str(tmp_path / name) for name in names], "bookworm", source="x")
    assert len(caught.value.problems) == 4


def test_a_path_is_told_from_a_key_line() -> None:
    assert is_key_path("~/.ssh/id_ed25519.pub")
    assert is_key_path("keys/admin.pub")
    assert is_key_path("/home/a b/key.pub")
    assert not is_key_path(ed25519_line())


@given(st.text(max_size=200))
def test_no_text_is_taken_for_a_key_by_chance(text: str) -> None:
    with pytest.raises(WrongValueError):
        check_key_line(text, BOOKWORM)


@given(st.integers(min_value=13, max_value=60), st.characters(codec="ascii"))
def test_a_key_with_a_changed_type_or_length_never_passes(place: int, letter: str) -> None:
    kind, blob, comment = ed25519_line().split()
    if blob[place] == letter or letter in "=" or place > 20:
        return
    with pytest.raises(WrongValueError):
        check_key_line(f"{kind} {blob[:place]}{letter}{blob[place + 1 :]} {comment}", BOOKWORM)
