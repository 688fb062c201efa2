"""Small signed archives: dpkg-deb makes the packages, apt-ftparchive the indexes, gpg signs."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

ARCH = "amd64"
TOOLS = ("dpkg-deb", "apt-ftparchive", "gpg", "gpgconf", "gpgv")


def missing_tools() -> list[str]:
    """What this machine lacks to make an archive."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def run_tool(
    argv: Iterable[object], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> bytes:
    words = [str(word) for word in argv]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    done = subprocess.run(
        words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr.decode()}"
    return done.stdout


class Keys:
    """Signing keys in a GNUPGHOME of their own; `close` ends its gpg-agent."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir(mode=0o700)

    def make(self, name: str, *, born_days_ago: int = 0, lives_days: int = 0) -> str:
        """A new key's fingerprint; `lives_days` 0 means for ever."""
        life = f"{lives_days}d" if lives_days else "never"
        argv = ["--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", life]
        self._gpg(["--passphrase", "", *argv], days_ago=born_days_ago)
        listed = self._gpg(["--with-colons", "--list-keys", f"={name} <{name}@example.org>"])
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def export(self, path: Path, *fingerprints: str) -> Path:
        """Write a keyring of these keys."""
        self._gpg(["--output", path, "--export", *fingerprints])
        return path

    def sign(
        self, text: bytes | str, *fingerprints: str, days_ago: int = 0, hash_name: str = "SHA256"
    ) -> bytes:
        """The text, clear-signed by each of these keys."""
        plain, signed = self._home / "plain", self._home / "signed"
        plain.write_bytes(text if isinstance(text, bytes) else text.encode())
        signed.unlink(missing_ok=True)
        users = [word for key in fingerprints for word in ("--local-user", f"{key}!")]
        argv = ["--digest-algo", hash_name, *users, "--output", signed, "--clearsign", plain]
        self._gpg(argv, days_ago=days_ago)
        return signed.read_bytes()

    def sign_for(self, text: str, fingerprint: str, *, days_ago: int, lives_days: int) -> bytes:
        """The text, clear-signed by a key on that day with a signature that holds some days."""
        plain, signed = self._home / "plain", self._home / "signed"
        plain.write_text(text)
        signed.unlink(missing_ok=True)
        argv = ["--default-sig-expire", f"{lives_days}d", "--local-user", f"{fingerprint}!"]
        argv += ["--output", str(signed), "--clearsign", str(plain)]
        self._gpg(argv, days_ago=days_ago)
        return signed.read_bytes()

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key by the certificate that gpg made with it."""
        made = self._home / "openpgp-revocs.d" / f"{fingerprint}.rev"
        made.write_text(made.read_text().replace(":-----BEGIN", "-----BEGIN"))
        self._gpg(["--import", made])

    def sign_apart(self, path: Path, *fingerprints: str, days_ago: int = 0) -> Path:
        """PATH.gpg, as archives had it before InRelease."""
        made = path.with_name(f"{path.name}.gpg")
        users = [word for key in fingerprints for word in ("--local-user", f"{key}!")]
        argv = [*users, "--armor", "--output", made, "--detach-sign", path]
        self._gpg(argv, days_ago=days_ago)
        return made

    def close(self) -> None:
        """End the agent that gpg started."""
        run_tool(["gpgconf", "--homedir", self._home, "--kill", "all"])

    def _gpg(self, argv: Iterable[object], *, days_ago: int = 0) -> str:
        options: list[object] = ["gpg", "--homedir", self._home, "--batch", "--yes", "--quiet"]
        if days_ago:
            options += ["--faked-system-time", f"{_ago(days_ago):%Y%m%dT%H%M%S}"]
        return run_tool([*options, *argv]).decode()


def _ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def _date(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True).replace("GMT", "UTC")


Change = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class ReleaseForm:
    """How a Release file is written: its names, its dates in days ago, who signs with what.

    The changes are made to the plain index, to the packed one, and to the Release before it is
    signed: what an archive's owner can do.
    """

    codename: str = "bookworm"
    suite: str = "stable"
    dated_days_ago: float = 1
    valid_days: float = 30
    has_by_hash: bool = True
    has_inrelease: bool = True
    signers: tuple[str, ...] = ()
    signed_days_ago: int = 0
    hash_name: str = "SHA256"
    packer: str = "xz"
    change_index: Change = bytes
    change_packed: Change = bytes
    change_release: Change = bytes


class SmallArchive:
    """root/debian and root/debian-security, with one package for each version that was added."""

    def __init__(self, root: Path, keys: Keys, arch: str = ARCH) -> None:
        self.root = root
        self.keys = keys
        self.arch = arch

    def add_package(
        self,
        name: str,
        version: str,
        area: str = "debian",
        *,
        files: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Build a .deb into an area's pool; `files` maps paths in it to their bytes."""
        tree = self.root / "build" / f"{area}-{name}-{version}"
        for path, content in (files or {}).items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: {self.arch}\n"
            "Maintainer: Tests <tests@example.org>\nDescription: a package for tests\n"
        )
        pool = self.root / area / "pool/main"
        pool.mkdir(parents=True, exist_ok=True)
        deb = pool / f"{name}_{version}_{self.arch}.deb"
        run_tool(["dpkg-deb", "--root-owner-group", "-Zxz", "-b", tree, deb])
        shutil.rmtree(self.root / "build")
        return deb

    def publish(self, name: str, form: ReleaseForm, area: str = "debian") -> Path:
        """Write dists/<name> anew from the area's pool; returns what was signed."""
        home, suite = self.root / area, self.root / area / "dists" / name
        binary = suite / "main" / f"binary-{self.arch}"
        shutil.rmtree(binary, ignore_errors=True)
        binary.mkdir(parents=True)
        packages = run_tool(["apt-ftparchive", "packages", "pool"], cwd=home)
        (binary / "Packages").write_bytes(form.change_index(packages))
        run_tool([form.packer, "-k", binary / "Packages"])
        packed = next(binary.glob("Packages.*"))
        packed.write_bytes(form.change_packed(packed.read_bytes()))
        text = form.change_release(self._release(suite, form).encode())
        if form.has_by_hash:
            self._add_by_hash(binary)
        if not form.has_inrelease:
            (suite / "Release").write_bytes(text)
            self.keys.sign_apart(suite / "Release", *form.signers, days_ago=form.signed_days_ago)
            return suite / "Release"
        inrelease = suite / "InRelease"
        inrelease.write_bytes(
            self.keys.sign(
                text, *form.signers, days_ago=form.signed_days_ago, hash_name=form.hash_name
            )
        )
        return inrelease

    def index(self, name: str, area: str = "debian") -> Path:
        """The compressed Packages file of a suite's main component."""
        return self.root / area / "dists" / name / "main" / f"binary-{self.arch}" / "Packages.xz"

    def _release(self, suite: Path, form: ReleaseForm) -> str:
        (suite / "InRelease").unlink(missing_ok=True)
        options = {"Suite": form.suite, "Codename": form.codename, "Components": "main"}
        options |= {"Architectures": self.arch, "Origin": "Tests"}
        argv = [
            word
            for key, value in options.items()
            for word in ("-o", f"APT::FTPArchive::Release::{key}={value}")
        ]
        text = run_tool(["apt-ftparchive", *argv, "release", "."], cwd=suite).decode()
        made = [line for line in text.splitlines() if not line.startswith("Date:")]
        dates = [f"Date: {_date(_ago(form.dated_days_ago))}"]
        if form.valid_days:
            until = _ago(form.dated_days_ago - form.valid_days)
            dates.append(f"Valid-Until: {_date(until)}")
        if form.has_by_hash:
            dates.append("Acquire-By-Hash: yes")
        return "\n".join([*dates, *made]) + "\n"

    def _add_by_hash(self, binary: Path) -> None:
        folder = binary / "by-hash/SHA256"
        folder.mkdir(parents=True)
        for path in (binary / "Packages", binary / "Packages.xz"):
            shutil.copyfile(path, folder / hashlib.sha256(path.read_bytes()).hexdigest())
