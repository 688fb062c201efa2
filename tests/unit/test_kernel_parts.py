"""Which packages a kernel is made of."""

from pathlib import Path

from pipeline.mirror.index import PackageIndex
from pipeline.stages.kernel import resolve_parts


def stanza(name: str, depends: str) -> str:
    return (
        f"Package: {name}\nVersion: 5.15.0-1\nArchitecture: amd64\nDepends: {depends}\n"
        f"Filename: pool/{name}.deb\nSize: 1\nSHA256: {'a' * 64}\n\n"
    )


def names(tmp_path: Path, *stanzas: str) -> list[str]:
    index = tmp_path / "Packages"
    index.write_text("".join(stanzas))
    packages = PackageIndex([("http://mirror", index)])
    return [part.name for part in resolve_parts(packages, "linux-image-generic", "")]


def test_an_image_and_its_modules_that_need_one_another_come_once(tmp_path: Path) -> None:
    """jammy's do; e44a75a went round until Python's stack was full."""
    found = names(
        tmp_path,
        stanza("linux-image-generic", "linux-image-5.15.0-1, linux-firmware"),
        stanza("linux-image-5.15.0-1", "kmod, linux-modules-5.15.0-1 (= 5.15.0-1)"),
        stanza("linux-modules-5.15.0-1", "linux-image-5.15.0-1 | linux-image-unsigned-5.15.0-1"),
    )
    assert found == ["linux-image-generic", "linux-image-5.15.0-1", "linux-modules-5.15.0-1"]


def test_a_package_that_needs_itself_comes_once(tmp_path: Path) -> None:
    assert names(tmp_path, stanza("linux-image-generic", "linux-image-generic")) == [
        "linux-image-generic"
    ]
