"""A host's folder that doit dom0 sets up, with a part of the tests' own beside the real ones.

The part makes what no real one makes together: a file changed in place, one made, one removed, a
link, a link that becomes a file, folders.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.dom0.layout import Layout
from pipeline.dom0.setup import host_change, host_plan
from pipeline.dom0.setup.host_file import HostFile, Part
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.errors import Finding

Stand = dict[str, tuple[object, ...]]


def _render(settings: HostSettings, host: HostView) -> Iterable[HostFile]:
    if settings.lvm is None:
        return
    groups = ",".join(settings.lvm.groups).encode()
    before = host.read_bytes("/etc/trial/changed") or b""
    lines = [line for line in before.splitlines(keepends=True) if not line.startswith(b"groups=")]
    yield HostFile("/etc/trial/changed", b"".join(lines) + b"groups=" + groups + b"\n")
    yield HostFile("/etc/trial/new.d/deep/made", groups, mode=0o640)
    yield HostFile("/etc/trial/removed", None)
    yield HostFile("/etc/trial/link", link="/run/elsewhere")
    yield HostFile("/etc/trial/was-link", groups)
    yield HostFile("/etc/trial/as-it-is", b"stays\n")


def _check(settings: HostSettings, _host: HostView, tree: Path) -> Iterable[Finding]:
    assert (tree / "etc/trial/changed").is_file()
    assert (tree / "etc/other").read_text() == "another file of the host\n"
    assert not (tree / "etc/trial/removed").exists()
    if settings.lvm is not None and "wrong" in settings.lvm.groups:
        yield Finding("error", "/etc/trial/changed", "its reader refuses it", "mend it")


TRIAL = Part(
    "trial",
    ("/etc/trial/*", "/etc/trial/new.d/deep/*"),
    _render,
    _check,
    after=lambda _settings, _host: [("trial-reload", "all")],
)


class HostBench:
    """The folder of a host; `parts` are put in the place of the real ones."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *parts: Part) -> None:
        self.root, self.layout = root, Layout(root)
        for module in (host_change, host_plan):
            monkeypatch.setattr(module, "PARTS", parts)
        self.write("etc/debian_version", "12.5\n")
        self.write("etc/other", "another file of the host\n")
        self.write("etc/trial/changed", b"\xff\xfeforeign bytes\ngroups=old\n", mode=0o4751)
        self.write("etc/trial/removed", "to be gone\n", mode=0o600)
        self.write("etc/trial/as-it-is", "stays\n")
        (root / "etc/trial/was-link").symlink_to("changed")
        os.utime(root / "etc/trial/was-link", ns=(5, 7), follow_symlinks=False)

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        """A file with a time of long ago."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        if os.geteuid() == 0:
            os.chown(file, 1234, 4321)
            file.chmod(mode)
        os.setxattr(file, "user.domu-test", path.encode())
        os.utime(file, ns=(1_000_000_007, 1_234_567_890_123_456_789))
        return file

    def look(self, *, times: bool = True) -> Stand:
        """Every entry but the state folder's: kind, mode, owner, time, attributes, bytes."""
        stand: Stand = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if name == "var" or name.startswith("var/"):
                continue
            status = path.lstat()
            time = status.st_mtime_ns if times and not path.is_dir() else 0
            attributes = [
                (key, os.getxattr(path, key, follow_symlinks=False))
                for key in os.listxattr(path, follow_symlinks=False)
            ]
            content: object = ""
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = path.read_bytes()
            owner = (status.st_uid, status.st_gid)
            stand[name] = (status.st_mode, owner, time, tuple(attributes), content)
        return stand
