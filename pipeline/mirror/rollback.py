"""The newest state of each suite that was ever seen here: a mirror that shows an older one lies.

Signatures do not help against a replay: an old InRelease file is signed as well. Valid-Until does,
but a stable suite's main archive has none.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.files import fingerprint, write_durably
from pipeline.mirror.release import Release, Terms


class Seen:
    """A folder with one small file for each suite of an origin, and for each mirror of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self, release: Release, suite: str, root: str, *, terms: Terms, where: str) -> None:
        """VerificationError when this mirror went back in time, or lags too far behind others."""
        own = self._read(self._file(release, suite, root))
        if own and release.date < own:
            raise self._refusal(
                release,
                own,
                "this mirror showed a newer one before",
                where=where,
                file=self._file(release, suite, root),
            )
        newest = self._read(self._file(release, suite, ""))
        if newest and (newest - release.date).total_seconds() > terms.max_lag_s:
            raise self._refusal(
                release,
                newest,
                "another mirror showed a newer one",
                where=where,
                file=self._file(release, suite, ""),
            )

    def note(self, release: Release, suite: str, root: str) -> None:
        """Remember what was seen, if it is newer."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in (self._file(release, suite, root), self._file(release, suite, "")):
            before = self._read(path)
            if before is None or release.date > before:
                table = {"suite": suite, "root": root, "date": release.date.isoformat()}
                write_durably(path, json.dumps(table).encode())

    def newest(self, release: Release, suite: str) -> datetime | None:
        """The date of the newest state seen of a suite, through whatever mirror."""
        return self._read(self._file(release, suite, ""))

    def _file(self, release: Release, suite: str, root: str) -> Path:
        key = fingerprint([release.origin, suite, root])[:16]
        return self._folder / f"{suite.replace('/', '-')}-{key}.json"

    def _read(self, path: Path) -> datetime | None:
        if not path.is_file():
            return None
        try:
            found = datetime.fromisoformat(json.loads(path.read_bytes())["date"])
        except (ValueError, KeyError, TypeError) as error:
            raise VerificationError(
                f"{path.name}, what was seen of a mirror, is damaged ({error})",
                hint=f"remove {path}",
            ) from error
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def _refusal(
        self, release: Release, newer: datetime, who: str, *, where: str, file: Path
    ) -> VerificationError:
        return VerificationError(
            f"{where}: frozen or replayed: its state is of {release.date:%Y-%m-%d %H:%M}, "
            f"{who}, of {newer:%Y-%m-%d %H:%M}",
            hint="choose another mirror=; if the archive itself was taken back, remove "
            f"{file}, or allow it with max_lag in mirrors/NAME.toml",
        )
