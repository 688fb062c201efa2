"""A mirror that moves as the tests say: real packages of bookworm, signed by a key of the tests.

Its indexes are the real ones, cut down to what guests and the test host may need; a .deb is fetched
when it is first asked for and kept, by its digest, in the package cache of the tests. Every state
is signed anew with a later date. debian-archive-keyring comes from here with our key in it, so that
the guests' own apt accepts what the tests sign.
"""

import gzip
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from pipeline.proof.testhost import packages_for
from pipeline.suites import SUITES
from tests.host.archives import Keys, ReleaseForm, SmallArchive, run_tool
from tests.real_archive import RealArchive, Stanza, read_real_archive
from tests.wire import WebServer

SUITE = "bookworm"
SECURITY = "debian-security"
AREAS = {"main": "debian", "updates": "debian", "security": SECURITY}
POCKETS = {"main": "", "updates": "-updates", "security": "-security"}
KEYRING = "debian-archive-keyring"
ENTRY = """{source} ({version}) bookworm-security; urgency={urgency}

{lines}

 -- Tests <tests@example.org>  {date}

"""
_OLDEST_DAYS = 9.0
_STEP_DAYS = 0.1
_BESIDE = ("linux-image-cloud-amd64", "linux-image-amd64", "busybox-static", KEYRING)


class NightMirror:
    """A signed archive of real packages, and its server; `publish` shows what was added."""

    def __init__(self, folder: Path, keys: Keys, signer: str, real: RealArchive) -> None:
        self.real = real
        self.keyring = keys.export(folder / "keyring.gpg", signer)
        self.archive = SmallArchive(folder / "srv", keys)
        self.server = _Server(self.archive.root, real)
        self.states = 0
        self._signer = signer
        self._work = folder / "work"
        for area in set(AREAS.values()):
            (self.archive.root / area / "pool/main").mkdir(parents=True)
        key = {"etc/apt/trusted.gpg.d/tests.gpg": self.keyring.read_bytes()}
        self._repack(KEYRING, "the key of the tests", files=key)
        self.publish()

    @property
    def definition(self) -> str:
        """What mirrors/NAME.toml says of it."""
        return f'url = "{self.server.url}/debian"\nkeyring = "{self.keyring}"\n'

    @property
    def date(self) -> datetime:
        """When the state was made that is shown now: each is a little later than the last one."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return today - timedelta(days=_OLDEST_DAYS - self.states * _STEP_DAYS)

    def add_update(
        self,
        package: str,
        *entries: str,
        urgency: str = "high",
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """Publish a security update: the package as it is, with a changelog entry of these lines.

        `files` are written over, or beside, what is in it. Returns its version. No other package
        may ask for this very version.
        """
        version = self._repack(package, *entries, urgency=urgency, files=files)
        self.publish()
        return version

    def add_unrelated(self, name: str = "nobody-has-this") -> None:
        """Publish a package that no guest has."""
        self.archive.add_package(name, f"1.{self.states}", SECURITY)
        self.publish()

    def publish(self) -> None:
        """A new state with a new date, whether or not anything was added."""
        self.states += 1
        age = datetime.now(UTC) - self.date
        for role, area in AREAS.items():
            real = b"".join(one.text + b"\n\n" for one in self.real.stanzas[role])
            pocket = POCKETS[role]
            form = ReleaseForm(
                codename=f"{SUITE}{pocket}",
                suite=f"stable{pocket}",
                dated_days_ago=age / timedelta(days=1),
                signers=(self._signer,),
                change_index=lambda ours, real=real, role=role: (  # type: ignore[misc]
                    real + (ours if role == "security" else b"")
                ),
            )
            self.archive.publish(f"{SUITE}{pocket}", form, area)

    def _repack(
        self,
        package: str,
        *entries: str,
        urgency: str = "high",
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """The newest .deb of a package, ours or the real one, again with a higher version."""
        pool = self.archive.root / SECURITY / "pool/main"
        ours = sorted(pool.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime_ns)
        deb = ours[-1] if ours else self.real.fetch(self.real.find(package))
        tree = self._work / package
        shutil.rmtree(tree, ignore_errors=True)
        tree.parent.mkdir(parents=True, exist_ok=True)
        run_tool(["dpkg-deb", "-R", deb, tree])
        control = tree / "DEBIAN/control"
        was = next(
            line for line in control.read_text().splitlines() if line.startswith("Version: ")
        )
        version = f"{was.removeprefix('Version: ').partition('+night')[0]}+night{self.states + 1}"
        control.write_text(control.read_text().replace(was, f"Version: {version}"))
        written = [self._prepend(tree, package, version, entries, urgency)]
        for name, content in (files or {}).items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
            written.append(tree / name)
        _seal(tree, written, int(self.date.timestamp()))
        made = pool / f"{package}_{version.partition(':')[2] or version}_amd64.deb"
        epoch = {"SOURCE_DATE_EPOCH": str(int(self.date.timestamp()))}
        run_tool(["dpkg-deb", "--root-owner-group", "-Zxz", "-b", tree, made], env=epoch)
        return version

    def _prepend(
        self, tree: Path, package: str, version: str, entries: Sequence[str], urgency: str
    ) -> Path:
        """Write a changelog's newest entry above what it says."""
        folder = tree / "usr/share/doc" / package
        path = next(
            one
            for name in ("changelog.Debian.gz", "changelog.gz")
            if (one := folder / name).is_file() and not folder.is_symlink()
        )
        before = gzip.decompress(path.read_bytes())
        entry = ENTRY.format(
            source=before.decode().split()[0],
            version=version,
            urgency=urgency,
            lines="\n".join(f"  * {line}" for line in entries),
            date=format_datetime(self.date),
        )
        path.write_bytes(gzip.compress(entry.encode() + before, mtime=0))
        return path


class _Server(WebServer):
    """What was published, and the real packages from wherever they come."""

    def __init__(self, root: Path, real: RealArchive) -> None:
        self._real = real
        self._pool: dict[str, Stanza] = {
            f"/{AREAS[role]}/{stanza.fields['filename']}": stanza
            for role, stanzas in real.stanzas.items()
            for stanza in stanzas
        }
        super().__init__(root)

    def find(self, path: str) -> Path | None:
        stanza = self._pool.get(path)
        return self._real.fetch(stanza) if stanza else super().find(path)


def _seal(tree: Path, written: Sequence[Path], epoch: int) -> None:
    """Sums and times as they would be if the package had been built like that."""
    sums = tree / "DEBIAN/md5sums"
    split = (line.split(maxsplit=1) for line in sums.read_text().splitlines())
    known = {name: digest for digest, name in split}
    for path in written:
        known[str(path.relative_to(tree))] = hashlib.md5(path.read_bytes()).hexdigest()
    sums.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(known.items())))
    for path in (*written, sums, tree / "DEBIAN/control"):
        os.utime(path, (epoch, epoch))


@contextmanager
def night_mirror(folder: Path, output: Path, *packages: str) -> Iterator[NightMirror]:
    """A mirror for guests of either init with these packages, and for the test host.

    `output` is the tests' output folder: its store and its cache are used.
    """
    suite = SUITES[SUITE]
    names = [*packages, *_BESIDE, *packages_for("4.17")]
    names += [*suite.base_packages("systemd"), *suite.base_packages("sysvinit")]
    keys = Keys(folder / "keys")
    try:
        real = read_real_archive(output, *names)
        mirror = NightMirror(folder, keys, keys.make("nights"), real)
        with mirror.server:
            yield mirror
    finally:
        keys.close()
