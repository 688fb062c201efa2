"""The picture of the rooms, docs/rooms.svg, made of the contract in pyproject.toml.

`python -m tests.style.house --write` makes it again. What stands higher imports what stands lower;
rooms of one row with a line between them do not know each other.
"""

import ast
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/rooms.svg"
WIDTH, MARGIN, GAP = 1000, 12, 8
HEAD, LINE = 24, 14  # pixels: a room's name, a line of what it is or of its modules
_LETTER = 6.1  # a letter of the small print, on average
_INK, _SOFT, _PAPER, _BOX, _FILE = "#1d2733", "#5b6b7d", "#ffffff", "#e8f0f7", "#f6f1e3"


def rows() -> Iterator[list[str]]:
    """The rooms of each layer, the highest first."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(one for one in table["contracts"] if one["id"] == "rooms")
    for layer in contract["layers"]:
        yield layer.replace("|", ":").replace(" ", "").split(":")


def modules_of(room: str) -> list[str]:
    """The modules of a folder, those of folders in it with their folder; none of a single file."""
    folder = ROOT / "pipeline" / room
    paths = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return sorted(str(path.with_suffix("")) for path in paths if path.stem != "__init__")


def summary_of(room: str) -> str:
    """The first line of the room's own docstring."""
    folder = ROOT / "pipeline" / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def draw() -> str:
    """The page: one row a layer, one box a room; folders are twice as wide as single files."""
    parts: list[str] = []
    top = MARGIN
    for rooms in rows():
        shares = [2 if modules_of(room) else 1 for room in rooms]
        share = (WIDTH - 2 * MARGIN - GAP * (len(rooms) - 1)) / sum(shares)
        widths = [int(share * count) for count in shares]
        texts = [_text_of(room, width) for room, width in zip(rooms, widths, strict=True)]
        height = max(HEAD + LINE * len(lines) for lines in texts)
        left = MARGIN
        for room, width, lines in zip(rooms, widths, texts, strict=True):
            parts += _box(room, lines, left, top, width, height)
            left += width + GAP
        top += height + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + MARGIN}" '
        f'viewBox="0 0 {WIDTH} {top + MARGIN}" font-family="sans-serif" font-size="11">'
    )
    paper = f'<rect width="{WIDTH}" height="{top + MARGIN}" fill="{_PAPER}"/>'
    return "\n".join([head, paper, *parts, "</svg>", ""])


def _text_of(room: str, width: int) -> list[tuple[str, str]]:
    """The lines of a box with their colors: what it is, its modules."""
    letters = int((width - 2 * MARGIN) / _LETTER)
    modules = textwrap.wrap("\u00a0· ".join(modules_of(room)), letters, break_on_hyphens=False)
    lines = [(line, _INK) for line in textwrap.wrap(summary_of(room), letters)]
    return [*lines, *((line, _SOFT) for line in modules)]


def _box(
    room: str, lines: list[tuple[str, str]], left: int, top: int, width: int, height: int
) -> Iterator[str]:
    color = _BOX if modules_of(room) else _FILE
    yield (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="4" fill="{color}" '
        f'stroke="{_SOFT}" stroke-width="0.6"/>'
    )
    yield _line(left, top + 16, f'font-weight="bold" font-size="13" fill="{_INK}"', room)
    for number, (text, shade) in enumerate(lines):
        yield _line(left, top + 30 + number * LINE, f'fill="{shade}"', text)


def _line(left: int, top: int, style: str, text: str) -> str:
    return f'<text x="{left + MARGIN}" y="{top}" {style}>{escape(text)}</text>'


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(draw())
    else:
        print(draw(), end="")
