"""What goes wrong between us and a mirror, in words, and whether it may pass."""

from pipeline.errors import PipelineError
from pipeline.mirror.credentials import without_credentials

CHOOSE = "check that the mirror or its proxy runs, or choose another with mirror=URL"
_PLAIN_HTTP = "http:// will do, packages are signed"
_TRUST = (
    "put its CA into /usr/local/share/ca-certificates/NAME.crt and run update-ca-certificates, or "
    f"name it in REQUESTS_CA_BUNDLE; {_PLAIN_HTTP}"
)
_ANOTHER_HOST = "its TLS certificate is for another host"
_UNKNOWN_CA = "its TLS certificate is signed by nobody known here"


class MirrorTrouble(PipelineError):
    """The mirror answers 5xx or 429, or drips: it may be better in a moment."""


class TooSlow(MirrorTrouble):
    """It sends, but so slowly that it may never end."""


# what an error says -> whether it may pass, in words, and what to do; the first that fits
_TROUBLES: tuple[tuple[str, type[PipelineError], str, str], ...] = (
    (
        "certificate has expired",
        PipelineError,
        "its TLS certificate has expired",
        f"tell its owner; {_PLAIN_HTTP}",
    ),
    (
        "certificate is not yet valid",
        PipelineError,
        "its TLS certificate is not yet valid",
        "is this machine's clock right?",
    ),
    ("ostname mismatch", PipelineError, _ANOTHER_HOST, f"correct mirror=; {_PLAIN_HTTP}"),
    ("IP address mismatch", PipelineError, _ANOTHER_HOST, f"correct mirror=; {_PLAIN_HTTP}"),
    ("self-signed", PipelineError, _UNKNOWN_CA, _TRUST),
    ("local issuer", PipelineError, _UNKNOWN_CA, _TRUST),
    (
        "WRONG_VERSION_NUMBER",
        PipelineError,
        "it does not speak TLS on this port",
        "write http:// in mirror=",
    ),
    ("SSLError", PipelineError, "its TLS certificate is not accepted", _TRUST),
    ("InvalidSchema", PipelineError, "it redirects to something that is not HTTP", CHOOSE),
    ("InvalidURL", PipelineError, "this is not a URL that can be fetched", CHOOSE),
    ("ProxyError", MirrorTrouble, "the proxy of http_proxy does not answer", CHOOSE),
    ("NameResolutionError", MirrorTrouble, "its host name cannot be resolved", CHOOSE),
    ("Connection refused", MirrorTrouble, "connection refused", CHOOSE),
    ("imed out", MirrorTrouble, "it does not answer in time", CHOOSE),
    ("Timeout", MirrorTrouble, "it does not answer in time", CHOOSE),
    ("IncompleteRead", MirrorTrouble, "the answer was cut short", CHOOSE),
    ("ChunkedEncoding", MirrorTrouble, "the answer was cut short", CHOOSE),
)


def name_trouble(error: Exception, url: str) -> PipelineError:
    """A network error in words; MirrorTrouble where trying again may help."""
    text, shown = f"{type(error).__name__} {error!r}", without_credentials(url)
    for sign, kind, reason, hint in _TROUBLES:
        if sign in text:
            return kind(f"{shown}: {reason}", hint=hint)
    return MirrorTrouble(f"{shown}: the connection failed ({type(error).__name__})", hint=CHOOSE)
