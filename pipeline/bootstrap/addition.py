"""What comes into a base tree afterwards: apt's own answer, one request after the other.

The tree itself is not needed, only what is installed in it; after each request that is what apt
would have made of it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bootstrap.order import Deb
from pipeline.bootstrap.resolution import ask_apt, find_named, list_below, write_config
from pipeline.errors import VerificationError
from pipeline.mirror.apt_lists import write_selected_lists
from pipeline.mirror.snapshot import Snapshot
from pipeline.mirror.stanzas import package_of, read_fields, split_stanzas

_REMOVED = "The following packages will be REMOVED:"
_INSTALLED = b"Status: install ok installed\n"


@dataclass(frozen=True)
class Addition:
    """The packages that come, in the order of the requests, and the names of those that go."""

    debs: tuple[Deb, ...]
    removed: tuple[str, ...]


def resolve_addition(
    requests: Iterable[Sequence[str]],
    snapshot: Snapshot,
    *,
    status: bytes,
    arch: str,
    folder: Path,
    run: Callable[..., str],
) -> Addition:
    """Ask apt what each request brings to a tree with this dpkg status.

    A request is a command line of apt-get install; of one only what is not there yet is asked for.
    `run` starts apt, `folder` is for its files. Raises what `run` raises.
    """
    installed = dict(_read_installed(status))
    wanted = [list(request) for request in requests if set(request) - installed.keys()]
    debs: list[Deb] = []
    gone: list[str] = []
    if not wanted:
        return Addition((), ())
    names = [name.partition("=")[0] for request in wanted for name in request]
    stanzas = write_selected_lists(snapshot, arch, names, folder / "lists")
    write_config(snapshot, arch=arch, folder=folder)
    for request in wanted:
        missing = [name for name in request if name not in installed]
        if not missing:
            continue
        (folder / "status").write_bytes(b"".join(installed.values()))
        lines = ask_apt(missing, folder, run).splitlines()
        removed = list_below(lines, _REMOVED)
        for name in removed:
            installed.pop(name, None)
        gone += removed
        for deb, _, stanza in find_named(lines, stanzas):
            debs.append(deb)
            installed[deb.name] = stanza + b"\n" + _INSTALLED + b"\n"
    return Addition(tuple(debs), tuple(gone))


def _read_installed(status: bytes) -> Iterable[tuple[str, bytes]]:
    """Each installed package with its stanza, which ends with an empty line."""
    for stanza in split_stanzas(status):
        try:
            fields = read_fields(stanza)
        except ValueError as error:
            raise VerificationError(f"dpkg's status: {ascii(str(error))} is no field") from None
        if fields.get("status", "").endswith(" installed"):
            yield package_of(stanza).decode(), stanza.rstrip(b"\n") + b"\n\n"
