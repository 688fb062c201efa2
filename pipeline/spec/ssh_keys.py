"""authorized_keys: each line parsed and judged, so that only sound public keys open a guest."""

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import Finding, SpecError, UsageError, WrongValueError
from pipeline.files import read_named_text
from pipeline.suites import SUITES, Suite

_KEY = "authorized_keys"
_TYPES = frozenset(
    ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
)
_FIDO_TYPES = frozenset(("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"))
# sshd(8), AUTHORIZED_KEYS FILE FORMAT
_OPTION = re.compile(
    r"(no-)?(agent-forwarding|port-forwarding|pty|user-rc|x11-forwarding|touch-required)"
    r"|cert-authority|restrict|verify-required"
    r'|(command|environment|expiry-time|from|permitlisten|permitopen|principals|tunnel)="[^"]*"',
    re.IGNORECASE,
)


def is_key_path(entry: str) -> bool:
    """Whether an entry of `authorized_keys` names a file, not a key itself."""
    return entry.startswith(("/", "~/", "./", "../")) or " " not in entry.strip()


def read_authorized_keys(entries: Iterable[str], suite: str, *, source: str) -> tuple[str, ...]:
    """The key lines that the entries of a spec come to, checked; raises SpecError with all faults.

    A path must be absolute, as the loader leaves it. Lines come without repetition.
    """
    lines, problems = find_keys(entries, SUITES[suite], source=source)
    if problems:
        raise SpecError(problems)
    return lines


def find_keys(
    entries: Iterable[str], suite: Suite, *, source: str, key: str = _KEY
) -> tuple[tuple[str, ...], list[Finding]]:
    """The sound key lines, and a problem for every other; `key` of the spec holds them."""
    lines: dict[str, None] = {}
    problems: list[Finding] = []
    for entry in entries:
        try:
            numbered = list(_read_entry(entry))
        except WrongValueError as mistake:
            problems.append(Finding("error", key, mistake.message, mistake.hint, source=source))
            continue
        for where, line in numbered:
            try:
                lines[check_key_line(line, suite)] = None
            except WrongValueError as mistake:
                problems.append(
                    Finding("error", key, f"{where}{mistake.message}", mistake.hint, source=source)
                )
    return tuple(lines), problems


def fingerprint_key(encoded: str) -> str:
    """What `ssh-keygen -l` prints of a public key in base64."""
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(encoded)).digest())
    return f"SHA256:{digest.decode().rstrip('=')}"


def check_key_line(line: str, suite: Suite) -> str:
    """The line, stripped; raises WrongValueError, whose message never shows the key."""
    from pipeline.spec.ssh_blob import check_blob  # cryptography: 80 ms, and most runs see no key

    line = line.strip()
    if not line.isprintable():
        raise WrongValueError("the line holds control characters", "copy the .pub file as it is")
    options, key_type, encoded = split_key_line(line)
    for option in options:
        if not _OPTION.fullmatch(option):
            raise WrongValueError(
                f"sshd knows no option {option.partition('=')[0]!r}", "see sshd(8)"
            )
    _check_type(key_type, suite)
    check_blob(key_type, encoded, is_fido=key_type in _FIDO_TYPES)
    return line


def _read_entry(entry: str) -> Iterable[tuple[str, str]]:
    if not is_key_path(entry):
        return [("", entry)]
    path = Path(entry).expanduser()
    try:
        text = read_named_text(path)
    except UsageError as error:
        raise WrongValueError(error.brief, "name a .pub file") from error
    _refuse_private(text, str(path))
    lines = text.split("\n")
    numbered = [(f"{path}:{number}: ", line) for number, line in enumerate(lines, start=1)]
    keys = [(where, line) for where, line in numbered if line.strip() and line.strip()[0] != "#"]
    if not keys:
        raise WrongValueError(f"{path} holds no key", "name a .pub file")
    return keys


def _refuse_private(text: str, where: str) -> None:
    if "PRIVATE KEY" in text or "PuTTY-User-Key-File" in text:
        raise WrongValueError(
            f"{where} is a private key", "name its .pub file; keep this one secret"
        )
    if "BEGIN SSH2 PUBLIC KEY" in text:
        raise WrongValueError(
            f"{where} is in the form of RFC 4716", f"convert it: ssh-keygen -i -f {where}"
        )


def split_key_line(line: str) -> tuple[list[str], str, str]:
    """Options, type and base64 text of a line; an option's quotes may hold spaces and commas."""
    _refuse_private(line, "this")
    words = re.findall(r'(?:[^\s"]|"(?:\\.|[^"\\])*")+', line)
    options: list[str] = []
    if words and words[0] not in _TYPES | _FIDO_TYPES and len(words) > 2 and _has_type(words[1]):
        options = re.findall(r'(?:[^,"]|"(?:\\.|[^"\\])*")+', words[0].replace('\\"', ""))
        words = words[1:]
    if len(words) < 2:
        raise WrongValueError(
            "this is not a public SSH key", "a line such as 'ssh-ed25519 AAAA...'"
        )
    return options, words[0], words[1]


def _has_type(word: str) -> bool:
    return word.startswith(("ssh-", "ecdsa-", "sk-"))


def _check_type(key_type: str, suite: Suite) -> None:
    if key_type == "ssh-dss":
        raise WrongValueError("DSA keys are broken", "make another: ssh-keygen -t ed25519")
    if "-cert-v0" in key_type:
        raise WrongValueError("this is a certificate, not a key", "name the .pub file beside it")
    if key_type not in _TYPES | _FIDO_TYPES:
        raise WrongValueError(
            "this is not a public SSH key", "a line such as 'ssh-ed25519 AAAA...'"
        )
    version = ".".join(str(part) for part in suite.openssh)
    if key_type == "ssh-ed25519" and not suite.understands_ed25519:
        raise WrongValueError(
            f"OpenSSH {version} of {suite.name} knows no ed25519 keys (6.5 does)",
            "give an RSA key: ssh-keygen -t rsa -b 4096",
        )
    if key_type.startswith("ecdsa") and suite.openssh < (5, 7):
        raise WrongValueError(
            f"OpenSSH {version} of {suite.name} knows no ECDSA keys (5.7 does)",
            "give an RSA key: ssh-keygen -t rsa -b 4096",
        )
    if key_type in _FIDO_TYPES and not suite.understands_security_keys:
        raise WrongValueError(
            f"OpenSSH {version} of {suite.name} knows no FIDO keys (8.2 does)", "give another key"
        )
