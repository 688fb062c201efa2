"""`doit report`: a page that needs nothing, says what is there, and obeys nothing that it shows."""

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.proof.names import FOLDER, PROOF, SCREENSHOT
from pipeline.proof.screen import Picture, render_png
from pipeline.report.page_contents import parse_status
from tests.torture.program import Ground

pytestmark = pytest.mark.integration
EVIL = "<script>alert(1)</script>\"'&\u202e\x1b[2J"
PACKAGES = "".join(
    f"Package: {name}\nStatus: install ok installed\nInstalled-Size: {size}\nVersion: 1\n"
    f"Architecture: amd64\nDescription: {text}\n\n"
    for name, size, text in (
        ("small", "10", "a small one"),
        (EVIL, "900", EVIL),
        ("sizeless", "-5", "of no size"),
        ("huge", "9" * 400, "more digits than a size has"),
    )
)
VOID = {"meta", "link", "img", "br", "rect", "hr", "input"}


class Page(HTMLParser):
    """The page as a browser takes it: tags, attributes, text, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    ground = Ground.make(tmp_path_factory.mktemp("ground"), "one")
    ground.ends(0, "build", "name=one")
    return ground


def write_page(ground: Ground) -> tuple[str, Page]:
    said = ground.ends(0, "report", "name=one")
    path = ground.output / "reports/one/index.html"
    assert str(path) in said
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    return text, Page(text)


def fake_packages(ground: Ground) -> None:
    (status,) = ground.output.glob("store/rootfs/*/dpkg-status")
    status.write_text(PACKAGES)
    manifest = ground.output / "guests/one/manifest"
    manifest.write_text("small 1 amd64\nhuge 1 amd64\nsizeless 1 amd64\nelsewhere 2:3-4 amd64\n")
    with open(manifest, "a") as stream:
        stream.write(f"{EVIL.replace(' ', '')} 1 amd64\n")


def test_the_page_says_what_the_guest_is_and_needs_nothing(ground: Ground) -> None:
    before = {path: path.read_bytes() for path in ground.output.glob("guests/one/*[MYg]")}
    text, page = write_page(ground)
    assert page.wrong == page.open == []
    shown = " ".join(" ".join(page.text).split())
    folder = ground.output / "guests/one"
    for expected in (
        f"xl create {folder}/one.cfg",
        "6.1.0-1-test",
        "nobody can log in",
        "it was never proven",
        "base-files",
        "bookworm",
        "ssh-ed25519",
    ):
        assert expected in shown, expected
    for line in (folder / "one.cfg").read_text().splitlines():
        assert " ".join(line.split()) in shown
    assert not {"script", "iframe", "link", "object", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert all((attributes.get(name) or "#").startswith("#") for name in ("href", "action"))
        assert (attributes.get("src") or "data:").startswith("data:")
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(one["content"] for one in page.all("meta") if "http-equiv" in one)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "url(" not in style[1] and "@import" not in style[1]
    assert {path: path.read_bytes() for path in before} == before


def test_everybody_can_read_it(ground: Ground) -> None:
    text, page = write_page(ground)
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(one.get("scope") in ("col", "row") for one in page.all("th"))
    assert all(one.get("alt") for one in page.all("img"))
    ids = [one["id"] for _, one in page.tags if "id" in one]
    assert len(ids) == len(set(ids))
    assert {one["href"] for one in page.all("a")} == {f"#{name}" for name in ids}
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_what_strangers_wrote_is_text(ground: Ground) -> None:
    """A package's name and description, a proof's answers, a picture that is none."""
    proof = ground.output / "guests/one" / FOLDER
    proof.mkdir(exist_ok=True)
    checks = [{"name": EVIL, "expected": "", "seen": EVIL, "ok": False}]
    record = {"form": 2, "proven_at": 1, "verdict": "failed", "reason": EVIL, "checks": checks}
    (proof / PROOF).write_text(json.dumps({**record, "facts": {"xen": EVIL}, "digests": {}}))
    (proof / SCREENSHOT).write_bytes(b'<svg onload="alert(1)">')
    fake_packages(ground)
    text, page = write_page(ground)
    assert page.wrong == page.open == []
    assert not page.all("script") and not page.all("img")
    shown = "".join(page.text)
    assert "<script>alert(1)</script>\"'&\\u202e\\x1b[2J" in shown
    assert not {"\u202e", "\x1b"} & set(text)
    assert "elsewhere" in shown  # of the manifest alone: no size is known
    bars = [float(one["width"] or "nan") for one in page.all("rect")]
    assert max(bars) <= 100.0
    for path in proof.iterdir():
        path.unlink()
    proof.rmdir()


def test_sizes_of_packages_have_bounds() -> None:
    sizes = {package.name: package.kib for package in parse_status(PACKAGES)}
    assert sizes == {"small": 10, EVIL: 900, "sizeless": 0, "huge": 0}


def test_the_screen_is_in_the_page_if_it_is_a_small_picture(ground: Ground) -> None:
    proof = ground.output / "guests/one" / FOLDER
    proof.mkdir(exist_ok=True)
    record = {"form": 2, "proven_at": 1, "verdict": "failed", "reason": "", "checks": []}
    (proof / PROOF).write_text(json.dumps({**record, "facts": {}, "digests": {}}))
    picture = render_png(Picture(8, 4, bytes(range(96))))
    (proof / SCREENSHOT).write_bytes(picture)
    (image,) = write_page(ground)[1].all("img")
    assert (image["src"] or "").partition("base64,")[2] == base64.b64encode(picture).decode()
    os.truncate(proof / SCREENSHOT, 3 << 20)
    assert write_page(ground)[1].all("img") == []
    (proof / SCREENSHOT).unlink()
    (proof / SCREENSHOT).symlink_to("/etc/shadow")
    assert write_page(ground)[1].all("img") == []


@pytest.mark.parametrize("name", ["manifest", "kernel.json", "spec.json", "one.cfg"])
def test_a_file_that_is_none_is_one_clear_error(ground: Ground, name: str) -> None:
    path: Path = ground.output / "guests/one" / name
    before = path.read_bytes()
    for make in (lambda: path.write_bytes(b"\0" * (5 << 20)), lambda: path.symlink_to("/dev/zero")):
        path.unlink()
        make()
        code, said = ground.run("report", "name=one")
        assert code != 0 and "Traceback" not in said, said
        assert said.count("error: ") == 1, said
    path.unlink()
    path.write_bytes(before)


def test_there_is_no_page_of_a_guest_that_is_not_built(tmp_path: Path) -> None:
    code, said = Ground.make(tmp_path / "ground", "two").run("report", "name=two")
    assert code == 2
    assert "two is not built: there is nothing to report on" in said
    assert "build name=two" in said
    assert not (tmp_path / "ground/output/reports").exists()
