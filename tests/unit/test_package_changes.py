"""The packages that moved between a build and today's state of the mirror."""

from pathlib import Path

from pipeline.artifact.record import describe_package_changes
from pipeline.mirror.snapshot import Snapshot

VERSIONS = (("bash", "5.2-1"), ("bash", "5.10-1"), ("dash", "0.5-1"))
INDEX = "\n".join(
    f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nSize: 1\nFilename: pool/{name}\n"
    f"SHA256: {'a' * 64}\n"
    for name, version in VERSIONS
)
MANIFEST = "bash 5.2-1 amd64\ndash 0.5-1 amd64\nlocal 1.0 all\n"


def snapshot_of(folder: Path, text: str) -> Snapshot:
    (folder / "Packages").write_text(text)
    return Snapshot(
        folder=folder,
        sources=(),
        digests={},
        epoch=0,
        identity="",
        index_files=(("http://mirror.test", "Packages"),),
    )


def test_a_newer_version_and_a_package_that_is_gone_are_named(tmp_path: Path) -> None:
    found = describe_package_changes(MANIFEST, snapshot_of(tmp_path, INDEX))
    assert found == ["bash 5.2-1 -> 5.10-1", "local 1.0 -> gone"]


def test_the_same_packages_are_no_change(tmp_path: Path) -> None:
    manifest = "bash 5.10-1 amd64\ndash 0.5-1 amd64\n"
    assert describe_package_changes(manifest, snapshot_of(tmp_path, INDEX)) == []
