"""Names that strangers wrote, checked once where they come in: what dpkg accepts, nothing else.

They become file names, lines of databases and words of commands, so each has one form, without a
slash, blank or control character. From dpkg's sources: lib/dpkg/parsehelp.c (package, version),
lib/dpkg/arch.c, lib/dpkg/triglib.c (triggers), src/main/unpack.c (control files),
src/deb/build.c and lib/dpkg/tarfn.c (paths).
"""

import re

from pipeline.errors import PipelineError

_PACKAGE = re.compile(r"[0-9A-Za-z][0-9A-Za-z+._-]*")
_ARCHITECTURE = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]*")
_VERSION = re.compile(r"(?:[0-9]{1,10}:[0-9A-Za-z][0-9A-Za-z.+~:-]*|[0-9A-Za-z][0-9A-Za-z.+~-]*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL_FILE = re.compile(r"[0-9A-Za-z][0-9A-Za-z_+-]*")
_TRIGGER_PATH = re.compile(r"(?:/[!-.0-~]+)+")
_CONTROL_FILE_MAX = 50  # dpkg's MAXCONTROLFILENAME is 100; with a package's name it is one name
_NAME_MAX, _PATH_MAX, DEPTH_MAX = 200, 4000, 100
_SHOWN = 80


def require_package(name: str, *, where: str) -> str:
    """A package's name as it is; PipelineError, naming `where` it stands, for what is none."""
    return _require(name, _PACKAGE, where=where, what="the name of a package")


def require_version(version: str, *, where: str) -> str:
    """A package's version as it is, or PipelineError."""
    return _require(version, _VERSION, where=where, what="the version of a package")


def require_architecture(name: str, *, where: str) -> str:
    """An architecture's name as it is, or PipelineError."""
    return _require(name, _ARCHITECTURE, where=where, what="the name of an architecture")


def require_sha256(digest: str, *, where: str) -> str:
    """A SHA-256 in lower-case hexadecimal as it is, or PipelineError."""
    return _require(digest, _SHA256, where=where, what="a SHA-256 digest")


def require_control_file(name: str, *, where: str) -> str:
    """The name of a file in a package's control part as it is, or PipelineError."""
    if name == "list" or len(name) > _CONTROL_FILE_MAX:  # NAME.list is dpkg's own
        raise _refusal(name, where, "the name of a control file")
    return _require(name, _CONTROL_FILE, where=where, what="the name of a control file")


def require_trigger(name: str, *, where: str) -> str:
    """A trigger as it is: a word of its own, or a path; else PipelineError."""
    if name.startswith("/") and _TRIGGER_PATH.fullmatch(name) and len(name) <= _PATH_MAX:
        return name
    if "_" in name or name in ("File", "Unincorp", "Lock"):  # dpkg's own files beside them
        raise _refusal(name, where, "the name of a trigger")
    return _require(name, _PACKAGE, where=where, what="the name of a trigger")


def require_path(path: str, *, where: str) -> str:
    """An absolute path that stays below the root and is one line, as it is; else PipelineError."""
    parts = path.split("/")
    too_long = len(path) > _PATH_MAX or len(parts) > DEPTH_MAX
    if too_long or path[:1] != "/" or ".." in parts or re.search(r"[\0\n]", path):
        raise _refusal(path, where, "a path inside a tree")
    return path


def _require(text: str, pattern: re.Pattern[str], *, where: str, what: str) -> str:
    if len(text) > _NAME_MAX or not pattern.fullmatch(text):
        raise _refusal(text, where, what)
    return text


def _refusal(text: str, where: str, what: str) -> PipelineError:
    shown = ascii(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
    return PipelineError(f"{where}: {shown} is not {what}")
