"""Where sshd looks for root's keys, and what keeps root out whatever the key."""

import pytest

from pipeline.guest.sshd_config import find_key_files, read_settings
from tests.unit.check_facts import make_tree

MAIN = "/etc/ssh/sshd_config"


def found(text: str, **included: str) -> tuple[list[str], str]:
    files = {f"/etc/ssh/sshd_config.d/{name}.conf": body for name, body in included.items()}
    return find_key_files(read_settings(make_tree({MAIN: text, **files})))


def test_without_a_word_about_it_keys_are_where_sshd_has_them_by_default() -> None:
    assert found("UsePAM yes\n") == ([".ssh/authorized_keys", ".ssh/authorized_keys2"], "")


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("AuthorizedKeysFile /etc/ssh/keys/%u .ssh/own", ["/etc/ssh/keys/%u", ".ssh/own"]),
        ('AuthorizedKeysFile "%h/keys"', ["%h/keys"]),
        ("PermitRootLogin without-password", [".ssh/authorized_keys", ".ssh/authorized_keys2"]),
        ("AllowUsers admin\nAllowUsers ro*@10.0.0.0/8", [".ssh/authorized_keys"]),
        ("DenyUsers admin", [".ssh/authorized_keys"]),
        ("Match User bob\nPermitRootLogin no", [".ssh/authorized_keys"]),
        ("Match Address 10.0.0.0/8\nPermitRootLogin no", [".ssh/authorized_keys"]),
        ("PermitRootLogin no\nMatch User root\nPermitRootLogin yes", [".ssh/authorized_keys"]),
        ("AuthenticationMethods publickey,password publickey", [".ssh/authorized_keys"]),
    ],
)
def test_root_enters_by_a_key_in_the_first_file(line: str, names: list[str]) -> None:
    files, why = found(f"{line}\n")
    assert (files[: len(names)], why) == (names, "")


@pytest.mark.parametrize(
    "line",
    [
        *("PermitRootLogin no", "PermitRootLogin forced-commands-only"),
        *("PubkeyAuthentication no", "AuthorizedKeysFile none", "AllowUsers admin"),
        *("AllowUsers * !root", "DenyUsers admin,root", "AllowGroups wheel"),
        "AuthenticationMethods publickey,password",
        "Match User root\nPubkeyAuthentication no",
    ],
)
def test_what_keeps_root_out_is_told_in_the_words_of_the_file(line: str) -> None:
    files, why = found(f"{line}\n")
    assert files == []
    assert why.split() == line.splitlines()[-1].lower().split() or why == line.lower()


def test_what_is_included_first_counts() -> None:
    main = "Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\n"
    assert found(main, a="PermitRootLogin no\n") == ([], "permitrootlogin no")
    assert found(main, a="PasswordAuthentication no\n")[1] == ""
