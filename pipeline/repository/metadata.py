"""The repository's signed metadata: The Update Framework's four roles, written and renewed.

The root key says whose signatures count and is needed for that alone. The targets' key signs what
is served, the snapshot's that it belongs together, the timestamp's that it is the newest. Versions
are times in seconds: whoever removes output/ and publishes again does not go back to 1, which
every host would take for a rollback.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from pipeline.console.progress import WARNING, print_line
from pipeline.errors import PipelineError, UsageError
from pipeline.files import damaged, read_bytes, write_durably
from pipeline.interruption import gate
from pipeline.locks import locked
from pipeline.project import Project
from pipeline.repository.export import Tree, export
from pipeline.scratch import remove_tree
from pipeline.supply.keys import (
    ROLES,
    Role,
    has_keys,
    load_signer,
    make_key,
    public_key,
    read_passphrase,
)
from pipeline.walls.privacy import PRIVATE_FILE

# how long a signature counts; half of it later it is renewed
LIFETIMES: Mapping[Role, timedelta] = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    "snapshot": timedelta(days=30),
    "timestamp": timedelta(days=7),
}
_WARNED_BEFORE = timedelta(days=60)
ROOT = "root.json"
TIMESTAMP = "metadata/timestamp.json"
_NEXT = "next"  # the folder of a key that a rotation is about to put in place
_NUMBERED = re.compile(r"\d+\.(targets|snapshot)\.json")
_MOST = 64 << 20
_MOST_ROOTS = 1000
_SERIALIZER = JSONSerializer(compact=True)
Part = TypeVar("Part", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True)
class Passphrases:
    """Files with passphrases: of the root key, and of the others."""

    root: Path | None = None
    others: Path | None = None


def signs(project: Project) -> bool:
    """Whether this site has a repository: somebody made its keys."""
    return has_keys(project.keys, "timestamp") and (project.keys / ROOT).is_file()


def make_keys(project: Project, passphrases: Passphrases) -> list[Role]:
    """A key for each role that has none, and the first root, which names them.

    Returns the roles that got one. Raises UsageError where there is nothing to make.
    """
    path = project.keys / ROOT
    missing = [role for role in ROLES if not has_keys(project.keys, role)]
    if path.exists():
        # a root key that lies elsewhere is no missing one
        missing = [role for role in missing if role == "statements"]
        if not missing:
            raise UsageError(
                f"{path} is there already: this site has its keys",
                hint="doit keys rotate=ROLE makes another key for a role",
            )
    for role in missing:
        make_key(project.keys, role, _passphrase_of(role, passphrases))
    if not path.exists():
        _found(project, passphrases)
    return missing


def _found(project: Project, passphrases: Passphrases) -> None:
    root = Root(version=1, expires=_expiry("root"), consistent_snapshot=True)
    for role in LIFETIMES:
        root.add_key(public_key(project.keys, role), role)
    signed = Metadata(root)
    signed.sign(load_signer(project.keys, "root", passphrases.root))
    for name in (f"1.{ROOT}", ROOT):
        _write(project.keys / name, signed)


def rotate(project: Project, role: Role, passphrases: Passphrases) -> None:
    """Another key for a role; who trusts the last root follows, by the signature of its key."""
    with held(project):
        _finish_rotation(project)
        beside = project.keys / _NEXT
        if role == "statements":
            _retire_statements(project)
            make_key(project.keys, role, _passphrase_of(role, passphrases))
            return
        history = _read_history(project)
        signed = history[-1]
        signers = [load_signer(project.keys, "root", passphrases.root)]
        make_key(beside, role, _passphrase_of(role, passphrases))
        if role == "root":
            signers.append(load_signer(beside, role, passphrases.root))
        root = signed.signed
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(public_key(beside, role), role)
        root.version += 1
        root.expires = _expiry("root")
        signed.signatures.clear()
        for signer in signers:
            signed.sign(signer, append=True)
        write_durably(project.keys / f"{root.version}.root.json", signed.to_bytes(_SERIALIZER))
        _finish_rotation(project)


def _passphrase_of(role: Role, passphrases: Passphrases) -> bytes | None:
    path = passphrases.root if role == "root" else passphrases.others
    return read_passphrase(path) if path else None


def _retire_statements(project: Project) -> None:
    """The public half of a statements' key stays, for what it has signed."""
    public = project.keys / "statements.pub"
    if public.exists():
        keyid = public_key(project.keys, "statements").keyid
        os.replace(public, public.with_name(f"statements-{keyid[:8]}.pub"))
    (project.keys / "statements.pem").unlink(missing_ok=True)


def _finish_rotation(project: Project) -> None:
    """Put the key in place that the newest root names; one that it does not was never used."""
    newest = _read_history(project)[-1]
    beside = project.keys / _NEXT
    for path in sorted(beside.glob("*.pub")):
        role = path.stem
        if role in LIFETIMES and public_key(beside, cast(Role, role)).keyid in (
            newest.signed.roles[role].keyids
        ):
            # the private half is last: until then this is done again
            for name in (f"{role}.pub", f"{role}.pem"):
                with gate("rotate", project.keys / name):
                    shutil.copyfile(beside / name, project.keys / f".{name}.new")
                    (project.keys / f".{name}.new").chmod(PRIVATE_FILE)
                    os.replace(project.keys / f".{name}.new", project.keys / name)
    grave = project.keys / f".{_NEXT}"
    if beside.exists():
        if grave.exists():
            remove_tree(grave)
        os.rename(beside, grave)  # half of it would be taken for a rotation
    if grave.exists():
        remove_tree(grave)
    content = read_bytes(project.keys / f"{newest.signed.version}.root.json", limit=_MOST)
    if read_bytes(project.keys / ROOT, limit=_MOST) != content:
        write_durably(project.keys / ROOT, content)


def _read_history(project: Project) -> list[Metadata[Root]]:
    """Every root that this site has had, the newest last; UsageError where there is none."""
    paths = [project.keys / f"{number}.{ROOT}" for number in range(1, _MOST_ROOTS)]
    history: list[Metadata[Root]] = []
    for path in paths:
        if not path.exists():
            break
        history.append(_parse(Root, read_bytes(path, limit=_MOST), path))
    if not history:
        raise UsageError(f"{paths[0]}: no such file", hint="doit keys makes a repository's keys")
    return history


def refresh(project: Project, passphrase: Path | None = None) -> int:
    """Bring what is served up to date with what is published, and renew what ages.

    timestamp.json is written last: killed before that, all is as it was. Returns the number of
    targets. `passphrase` is a file with that of the keys but the root's. Raises UsageError where
    a key is missing or the passphrase another.
    """
    folder = project.repository / "metadata"
    with held(project):
        _finish_rotation(project)
        history = _read_history(project)
        _warn_of_end(history[-1].signed)
        for path in (folder, project.repository / "targets"):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        last = _read_last(folder, history)
        tree = Tree(project.repository / "targets", last.targets.signed.targets if last else {})
        export(project, tree)
        signing = _Signing(project, passphrase, history[-1].signed, last)
        targets = signing.sign(
            Targets(signing.version, expires=_expiry("targets"), targets=tree.served)
        )
        snapshot = signing.sign(
            Snapshot(
                signing.version,
                expires=_expiry("snapshot"),
                meta={"targets.json": _describe(targets)},
            )
        )
        timestamp = signing.sign(
            Timestamp(
                signing.version, expires=_expiry("timestamp"), snapshot_meta=_describe(snapshot)
            )
        )
        now = _State(timestamp, snapshot, targets)
        for name, part in now.numbered.items():
            _write(folder / name, part)
        for path in sorted(project.keys.glob(f"*.{ROOT}")):
            write_durably(folder / path.name, read_bytes(path, limit=_MOST))
        _write(project.repository / TIMESTAMP, timestamp)
        _sweep(folder, tree, now, last)
    return len(tree.served)


def _warn_of_end(root: Root) -> None:
    """Nobody follows an expired root, and only a rotation renews it."""
    if root.expires < datetime.now(UTC) + _WARNED_BEFORE:
        print_line(
            WARNING,
            f" the root of trust ends on {root.expires:%Y-%m-%d}: bring its key back and renew it, "
            "doit keys rotate=root",
        )


@contextmanager
def held(project: Project, *, is_shared: bool = False) -> Iterator[None]:
    """While one signs, nobody else does, nor reads it as a whole."""
    with locked(project.published / ".locks" / ".repository", is_shared=is_shared):
        yield


@dataclass(frozen=True)
class _State:
    """The metadata as they are or were served."""

    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]

    @property
    def numbered(self) -> dict[str, Metadata[Any]]:
        """Those with their version in their name."""
        parts: tuple[Metadata[Any], ...] = (self.targets, self.snapshot)
        return {f"{part.signed.version}.{part.signed.type}.json": part for part in parts}


class _Signing:
    """Signs with a role's key what is not signed by it already, for long enough."""

    def __init__(
        self, project: Project, passphrase: Path | None, root: Root, last: _State | None
    ) -> None:
        self._project, self._passphrase, self._root, self._last = project, passphrase, root, last
        before = last.timestamp.signed.version if last else 0
        self.version = max(int(time.time()), before + 1)

    def sign(self, part: Part) -> Metadata[Part]:
        """The last one, where it says the same; the timestamp is always a new one."""
        role = cast(Role, part.type)
        kept: Metadata[Part] | None = getattr(self._last, role, None)
        if kept is not None and role != "timestamp" and self._is_good(kept, part):
            return kept
        signed = Metadata(part)
        signed.sign(load_signer(self._project.keys, role, self._passphrase))
        return signed

    def _is_good(self, kept: Metadata[Part], part: Part) -> bool:
        half = datetime.now(UTC) + LIFETIMES[cast(Role, part.type)] / 2
        return (
            kept.signed.expires > half
            and _says(kept.signed) == _says(part)
            and _is_signed(kept, [self._root])
        )


def _says(part: Signed) -> object:
    fields = part.to_dict()
    return {key: value for key, value in fields.items() if key not in ("version", "expires")}


def _is_signed(part: Metadata[Any], roots: Iterable[Root]) -> bool:
    for root in roots:
        with suppress(UnsignedMetadataError):
            root.verify_delegate(part.signed.type, part.signed_bytes, part.signatures)
            return True
    return False


def _read_last(folder: Path, history: Sequence[Metadata[Root]]) -> _State | None:
    """What was signed last, by a key that was ours then; None where there is none such."""
    roots = [signed.signed for signed in history]
    try:
        timestamp = _read(Timestamp, folder / "timestamp.json")
        number = timestamp.signed.snapshot_meta.version
        snapshot = _read(Snapshot, folder / f"{number}.snapshot.json")
        number = snapshot.signed.meta["targets.json"].version
        targets = _read(Targets, folder / f"{number}.targets.json")
    except FileNotFoundError:
        return None
    except PipelineError as error:
        print_line(f"  {error.brief}: all is signed anew")
        return None
    parts: tuple[Metadata[Any], ...] = (timestamp, snapshot, targets)
    if not all(_is_signed(part, roots) for part in parts):
        print_line(f"  {folder}: signed by keys that were never ours: all is signed anew")
        return None
    return _State(timestamp, snapshot, targets)


def _read(kind: type[Part], path: Path) -> Metadata[Part]:
    return _parse(kind, read_bytes(path, limit=_MOST), path)


def _parse(kind: type[Part], content: bytes, path: Path) -> Metadata[Part]:
    try:
        signed = cast("Metadata[Part]", Metadata.from_bytes(content))
    except (DeserializationError, RepositoryError) as error:
        raise damaged(path, "signed metadata", error) from error
    if not isinstance(signed.signed, kind):
        raise damaged(path, "signed metadata", f"of another role: {signed.signed.type}")
    return signed


def _describe(part: Metadata[Any]) -> MetaFile:
    content = part.to_bytes(_SERIALIZER)
    return MetaFile.from_data(part.signed.version, content, ["sha256"])


def _write(path: Path, part: Metadata[Any]) -> None:
    write_durably(path, part.to_bytes(_SERIALIZER))


def _expiry(role: Role) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + LIFETIMES[role]


def _sweep(folder: Path, tree: Tree, now: _State, last: _State | None) -> None:
    """Remove what neither this state nor the last one needs: a host may be in the midst of that."""
    states = [state for state in (now, last) if state]
    names = {name for state in states for name in state.numbered}
    for path in folder.iterdir():
        if _NUMBERED.fullmatch(path.name) and path.name not in names:
            path.unlink()
    served = {
        tree.place(each) for state in states for each in state.targets.signed.targets.values()
    }
    for path in tree.root.rglob("*"):
        if path.is_file() and path not in served:
            path.unlink()
