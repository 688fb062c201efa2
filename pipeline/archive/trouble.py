"""What a network error means, in words: its own text may hold a password."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import EnvironmentFault, PipelineError

HOST_CAS = Path("/etc/ssl/certs/ca-certificates.crt")
CHOOSE = "check that the mirror or its proxy runs, or choose another with mirror=URL"
_PLAIN_HTTP = "http:// will do, packages are signed"
_TRUST = (
    "put its CA into /usr/local/share/ca-certificates/NAME.crt and run update-ca-certificates, or "
    f"name it in REQUESTS_CA_BUNDLE; {_PLAIN_HTTP}"
)


class MirrorTrouble(PipelineError):
    """The mirror answers 5xx or 429, or drips: it may be better in a moment."""


@dataclass(frozen=True)
class Trouble:
    """What is wrong, whether trying again may help, what to do."""

    reason: str
    is_passing: bool
    hint: str = CHOOSE


# what an error says -> what it means; the first that fits
_TROUBLES: tuple[tuple[str, Trouble], ...] = (
    (
        "certificate has expired",
        Trouble("its TLS certificate has expired", False, f"tell its owner; {_PLAIN_HTTP}"),
    ),
    (
        "certificate is not yet valid",
        Trouble("its TLS certificate is not yet valid", False, "is this machine's clock right?"),
    ),
    (
        "ostname mismatch",
        Trouble(
            "its TLS certificate is for another host", False, f"correct mirror=; {_PLAIN_HTTP}"
        ),
    ),
    (
        "IP address mismatch",
        Trouble(
            "its TLS certificate is for another host", False, f"correct mirror=; {_PLAIN_HTTP}"
        ),
    ),
    ("self-signed", Trouble("its TLS certificate is signed by nobody known here", False, _TRUST)),
    ("local issuer", Trouble("its TLS certificate is signed by nobody known here", False, _TRUST)),
    (
        "WRONG_VERSION_NUMBER",
        Trouble("it does not speak TLS on this port", False, "write http:// in mirror="),
    ),
    ("SSLError", Trouble("its TLS certificate is not accepted", False, _TRUST)),
    ("InvalidSchema", Trouble("it redirects to something that is not HTTP", False)),
    ("InvalidURL", Trouble("this is not a URL that can be fetched", False)),
    ("ProxyError", Trouble("the proxy of http_proxy does not answer", True)),
    ("NameResolutionError", Trouble("its host name cannot be resolved", True)),
    ("Connection refused", Trouble("connection refused", True)),
    ("imed out", Trouble("it does not answer in time", True)),
    ("Timeout", Trouble("it does not answer in time", True)),
    ("IncompleteRead", Trouble("the answer was cut short", True)),
    ("ChunkedEncoding", Trouble("the answer was cut short", True)),
)


def name_trouble(error: Exception) -> Trouble:
    """A network error in words."""
    text = f"{type(error).__name__} {error!r}"
    for sign, trouble in _TROUBLES:
        if sign in text:
            return trouble
    return Trouble(f"the connection failed ({type(error).__name__})", True)


def trusted_cas() -> str | bool:
    """The CAs that the host trusts, as its own apt does; requests would use a list of its own."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if given := os.environ.get(name):
            if not Path(given).exists():
                raise EnvironmentFault(f"{name}: {given}: no such file", hint="correct or unset it")
            return given
    return str(HOST_CAS) if HOST_CAS.is_file() else True
