"""Rectangles whose areas are sizes: a squarified treemap (Bruls, Huizing and van Wijk, 2000)."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """One rectangle, in the units of the whole."""

    x: float
    y: float
    width: float
    height: float

    def fits(self, text: str, letter: float) -> bool:
        """Whether a text of letters that wide has room in it."""
        return self.height >= 2 * letter + 2 and self.width >= letter * (len(text) + 1.5)


def lay_out(sizes: Sequence[float], width: float, height: float) -> list[Tile]:
    """A tile for each size; the sizes are positive and in descending order."""
    total = sum(sizes)
    areas = [size * width * height / total for size in sizes] if total else []
    tiles: list[Tile] = []
    free = Tile(0, 0, width, height)
    while areas:
        side = min(free.width, free.height)
        count = 1
        while count < len(areas) and _worst(areas[: count + 1], side) <= _worst(
            areas[:count], side
        ):
            count += 1
        row, free = _place(areas[:count], free)
        tiles += row
        areas = areas[count:]
    return tiles


def _worst(row: Sequence[float], side: float) -> float:
    """The longest tile's ratio of sides, were these areas laid along a side; 1 is a square."""
    total = sum(row)
    return max(side**2 * row[0] / total**2, total**2 / (side**2 * row[-1]))


def _place(row: Sequence[float], free: Tile) -> tuple[list[Tile], Tile]:
    """The row along the shorter side, and what of the rectangle is left."""
    tiles, at = [], 0.0
    if free.width >= free.height:
        across = sum(row) / free.height
        for area in row:
            tiles.append(Tile(free.x, free.y + at, across, area / across))
            at += area / across
        return tiles, Tile(free.x + across, free.y, max(free.width - across, 1e-9), free.height)
    across = sum(row) / free.width
    for area in row:
        tiles.append(Tile(free.x + at, free.y, area / across, across))
        at += area / across
    return tiles, Tile(free.x, free.y + across, free.width, max(free.height - across, 1e-9))
