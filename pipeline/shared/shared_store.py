"""The shared store: the second level under a machine's own, for the golden half.

An artifact is pulled by its fingerprint, and used only if a party of the fleet signed exactly its
files for exactly that fingerprint. What is not right is named, dropped where this machine may
write, and built again. A store that does not answer is told once, and done without.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipeline.console.progress import WARNING, print_line, progress_bar
from pipeline.errors import PipelineError, UsageError, VerificationError
from pipeline.mirror.fetch import ATTEMPTS
from pipeline.remote.place import Place, PlaceTrouble, open_place, refuse_others
from pipeline.scratch import remove_tree, scratch_folder
from pipeline.shared import entry as entries
from pipeline.shared.collection import USED
from pipeline.shared.entry import MARKER, Entry, Part
from pipeline.shared.lease import PACE, Pace, leased
from pipeline.shared.parcel import pack, unpack, write_pieces
from pipeline.shared.sealed_folder import put_sealed, remove_sealed, take_sealed
from pipeline.storage.refusals import require_folder_room
from pipeline.store.store import BuildInfo, read_buildinfo
from pipeline.walls.certificates import Party, find_party


@dataclass
class Moved:
    """What went over the network for this store, in bytes."""

    pulled_bytes: int = 0
    pushed_bytes: int = 0


def open_store(
    url: str, certificates: Path, scratch: Path, *, name: str = "", is_strict: bool = False
) -> "SharedStore":
    """The store behind a URL, for the party `name` whose certificates are in a folder.

    By default the folder's only one, or this host's; without a key it is only read. Raises
    UsageError where there are no certificates, VerificationError where its own are of no use.
    """
    authority = certificates / "ca.pem"
    if not authority.is_file():
        raise UsageError(
            f"{url}: {certificates} holds no ca.pem, which says whose artifacts are taken",
            hint="doit fleet certificates makes an authority and this machine's own; on another "
            "machine: copy ca.pem and its own two files there",
        )
    party = None
    if any(path.name != "ca-key.pem" for path in certificates.glob("*-key.pem")):
        party = find_party(certificates, name)
        party.require_valid()
    refuse_others(url)
    return SharedStore(open_place(url), authority, party, scratch, is_strict=is_strict)


class SharedStore:
    """One store, as one machine sees it; may be used by several threads.

    `authority` is the certificate that signers have to be of, `party` who signs here: without one
    it is read and nothing more. `is_strict`: its trouble is an error, as for a worker's.
    """

    def __init__(
        self,
        place: Place,
        authority: Path,
        party: Party | None,
        scratch: Path,
        *,
        is_strict: bool = False,
        pace: Pace = PACE,
    ) -> None:
        self.moved = Moved()
        self._place, self._authority, self._party = place, authority.read_bytes(), party
        self._scratch, self._is_strict, self._pace = scratch, is_strict, pace
        self._given_up: set[str] = set()
        self._guard = threading.Lock()
        self._has_marker = False

    @property
    def is_writable(self) -> bool:
        """Whether what is built here goes there."""
        return bool(self._party) and self._place.is_writable and "written" not in self._given_up

    def pull(
        self,
        stage: str,
        fingerprint: str,
        scratch: Path,
        *,
        is_wanted: Callable[[BuildInfo], bool] = lambda _buildinfo: True,
    ) -> BuildInfo | None:
        """Fill `scratch` with the verified files of an artifact; None where there is none to use.

        `is_wanted` is asked before the files are fetched. Raises DiskFull, and PlaceTrouble where
        that is strict.
        """
        with self._forgiving("read"):
            for is_last in (False, True):
                entry = self._find(stage, fingerprint)
                if entry is None or not is_wanted(entry.buildinfo):
                    return None
                if self._fetch(stage, fingerprint, entry, scratch, is_last=is_last):
                    return entry.buildinfo
        return None

    def push(self, folder: Path) -> bool:
        """Make a published artifact known there, unless it is; whether it was done."""
        buildinfo = read_buildinfo(folder)
        if buildinfo is None or not self.is_writable:
            return False
        with self._forgiving("written"):
            self._require_marker()
            there = self._find(buildinfo.stage, buildinfo.fingerprint)
            if there is None or _is_newer(buildinfo, there.buildinfo):
                return self._push(folder, buildinfo, there)
            if there.buildinfo.files != buildinfo.files and not buildinfo.identity:
                name = f"{buildinfo.stage} {buildinfo.fingerprint[:12]}"
                print_line(WARNING, f" {name}: {there.signer} built other bytes of the same inputs")
        return False

    @contextmanager
    def lease(self, stage: str, fingerprint: str) -> Iterator[None]:
        """Who builds this for all; waits for another who does, as long as that one lives."""

        def say(holder: str) -> None:
            print_line(f"  {stage:<8} {holder} builds it for the shared store: waiting")

        with self._hold(f"{stage}-{fingerprint[:32]}", say):
            yield

    def push_sealed(self, name: str, folder: Path, key: bytes) -> None:
        """Encrypt a guest's own files for who has the job's key (32 bytes). Raises PlaceTrouble."""
        self._require_marker()
        size = put_sealed(self._place, name, folder, key, self._scratch)
        with self._guard:
            self.moved.pushed_bytes += size

    def pull_sealed(self, name: str, target: Path, key: bytes) -> None:
        """Make the folder below `target`, under its own name.

        FileNotFoundError where there are none. Raises PlaceTrouble, VerificationError.
        """
        size = take_sealed(self._place, name, target, key, self._scratch)
        with self._guard:
            self.moved.pulled_bytes += size

    def remove_sealed(self, name: str) -> None:
        """Whatever there is of them. Raises PlaceTrouble."""
        remove_sealed(self._place, name)

    @contextmanager
    def _hold(self, name: str, say: Callable[[str], None]) -> Iterator[None]:
        if not self.is_writable:
            yield
            return
        holder = leased(self._place, name, say, self._pace)
        is_held = False
        with self._forgiving("written"):
            self._require_marker()
            holder.__enter__()
            is_held = True
        try:
            yield
        finally:
            if is_held:
                holder.__exit__(None, None, None)

    def _find(self, stage: str, fingerprint: str) -> Entry | None:
        """The verified entry; None where there is none, or one that was dropped."""
        if "read" in self._given_up:
            return None
        name = f"{entries.folder_of(stage, fingerprint)}/{entries.STATEMENT}"
        where = f"{self._place.shown}/{name}"
        content = None
        try:
            content = self._place.read(name, limit=entries.MOST_STATEMENT)
            return entries.read_statement(content, self._authority, stage, fingerprint, where)
        except FileNotFoundError:
            return None
        except VerificationError as error:
            self._drop(stage, fingerprint, error, content)
            return None

    def _fetch(
        self, stage: str, fingerprint: str, entry: Entry, scratch: Path, *, is_last: bool
    ) -> bool:
        """Whether all its files are there and right; what is not right is dropped."""
        content = entry.content
        folder = entries.folder_of(stage, fingerprint)
        require_folder_room(scratch, content.packed_bytes + content.data_bytes)
        where = f"{self._place.shown}/{folder}"
        packed = scratch / f"{content.upload}{entries.PACKED}"
        try:
            with progress_bar(f"pulling {stage}", total=content.packed_bytes, unit="B") as bar:
                for number, part in enumerate(content.parts):
                    name = entries.part_name(folder, content.upload, number)
                    self._fetch_part(name, packed, part, where)
                    made = unpack(packed, scratch, part, where)
                    os.utime(made, (entry.buildinfo.built_at, entry.buildinfo.built_at))
                    packed.unlink()
                    bar.advance(part.packed_size)
        except FileNotFoundError as error:
            _clear(scratch)
            if is_last:  # once it may have been replaced by a newer one a moment ago
                trouble = VerificationError(f"{where}: a file of it is missing ({error})")
                self._drop(stage, fingerprint, trouble, entry.signed, entry)
            return False
        except VerificationError as error:
            _clear(scratch)
            self._drop(stage, fingerprint, error, entry.signed, entry)
            return False
        with suppress(PipelineError):
            if self.is_writable:
                self._place.replace(f"{folder}/{USED}", b"")
        with self._guard:
            self.moved.pulled_bytes += content.packed_bytes
        size = _show(content.packed_bytes)
        print_line(f"  {stage:<8} from the shared store, {size}, built by {entry.signer}")
        return True

    def _fetch_part(self, name: str, packed: Path, part: Part, where: str) -> None:
        """A connection may break once; what is wrong is wrong."""
        for number in range(ATTEMPTS):
            try:
                pieces = self._place.pieces(name, part.packed_size)
                write_pieces(pieces, packed, part.packed_size, f"{where}: {part.name}")
                return
            except PlaceTrouble:
                if number == ATTEMPTS - 1:
                    raise

    def _push(self, folder: Path, buildinfo: BuildInfo, there: Entry | None) -> bool:
        """Upload, then switch: until the statement is there, nobody looks for what it names."""
        assert self._party is not None
        place = entries.folder_of(buildinfo.stage, buildinfo.fingerprint)
        name, upload = f"{place}/{entries.STATEMENT}", entries.new_upload()
        parts: list[Part] = []
        has_won = False
        try:
            self._upload(folder, buildinfo, f"{place}/{upload}", parts)
            now = datetime.now(UTC)
            statement = entries.render_statement(buildinfo, upload, parts, self._party, now)
            if there is None:
                has_won = self._place.create(name, statement)
            else:
                self._place.replace(name, statement)
                has_won = True
        finally:
            if not has_won:
                self._remove_parts(place, upload, len(buildinfo.files))
            elif there is not None:
                self._remove_parts(place, there.content.upload, len(there.content.parts))
        with self._guard:
            self.moved.pushed_bytes += sum(part.packed_size for part in parts)
        return has_won

    def _upload(self, folder: Path, buildinfo: BuildInfo, stem: str, parts: list[Part]) -> None:
        with scratch_folder(self._scratch, f"push-{buildinfo.stage}", mode=0o700) as room:
            for number, file in enumerate(sorted(buildinfo.files)):
                packed = room / str(number)
                part = pack(folder, file, packed, sha256=buildinfo.files[file]["sha256"])
                self._place.put(packed, f"{stem}-{number}{entries.PACKED}")
                packed.unlink()
                parts.append(part)

    def _remove_parts(self, place: str, upload: str, count: int) -> None:
        """What no statement names; `doit gc store=` removes what stays."""
        with suppress(PipelineError):
            for number in range(count):
                self._place.remove(entries.part_name(place, upload, number))

    def _drop(
        self,
        stage: str,
        fingerprint: str,
        error: PipelineError,
        seen: bytes | None,
        entry: Entry | None = None,
    ) -> None:
        """Name what is wrong; take its statement away where this machine may."""
        print_line(WARNING, f" {error.brief}")
        if not self.is_writable:
            return
        place = entries.folder_of(stage, fingerprint)
        name = f"{place}/{entries.STATEMENT}"
        with self._forgiving("written"), suppress(FileNotFoundError):
            if seen and self._place.read(name, limit=entries.MOST_STATEMENT) != seen:
                return  # somebody has mended it meanwhile
            self._place.remove(name)
            if entry is not None:
                self._remove_parts(place, entry.content.upload, len(entry.content.parts))
            print_line(f"  {stage:<8} dropped from the shared store: it is built again")

    def _require_marker(self) -> None:
        """What says that this is a store; a place that has no step for "unless it is there" fails.

        Written again it has to be refused: services that know no If-None-Match would not.
        """
        if self._has_marker:
            return
        word = f'{{"form": 1, "made_by": "{uuid.uuid4().hex}"}}\n'.encode()
        other = word.replace(b"made_by", b"tried_by")
        if self._place.create(MARKER, word) and self._place.create(MARKER, other):
            self._place.remove(MARKER)
            raise PlaceTrouble(
                f"{self._place.shown}: it overwrites what it is asked to create",
                hint="an S3 service that knows If-None-Match, or sftp://",
            )
        self._has_marker = True

    @contextmanager
    def _forgiving(self, what: Literal["read", "written"]) -> Iterator[None]:
        """Trouble of the store is told, and the store not asked so again, unless it is strict."""
        try:
            yield
        except PlaceTrouble as error:
            if self._is_strict:
                raise
            with self._guard:
                is_told = what in self._given_up
                self._given_up |= {"read", "written"} if what == "read" else {what}
            if not is_told:
                print_line(WARNING, f" {error.brief}")
                print_line(f"  {error.hint}")
                print_line(f"  from here on the shared store is not {what} any more in this run")


def _is_newer(own: BuildInfo, there: BuildInfo) -> bool:
    """Whether it says more than what is there: a mirror's state always has the same name.

    What is of a time that has not come yet was made by a clock that is wrong, and nobody takes it.
    """
    is_older = own.built_at > there.built_at or there.built_at > time.time()
    return bool(own.identity) and is_older


def _clear(scratch: Path) -> None:
    for path in scratch.iterdir():
        remove_tree(path)


def _show(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"
