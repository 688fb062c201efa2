"""A bar chart of medians as SVG: one bar a contender, the shortest first."""

from collections.abc import Mapping
from xml.sax.saxutils import escape

ROW, LEFT, WIDTH = 34, 330, 420


def draw_bars(seconds: Mapping[str, float], *, title: str) -> str:
    """Name -> median in seconds."""
    longest = max(seconds.values())
    height = ROW * (len(seconds) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}" '
        'font-family="sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="{ROW - 10}" font-weight="bold">{escape(title)}</text>',
    ]
    for row, (name, value) in enumerate(sorted(seconds.items(), key=lambda item: item[1]), 1):
        top, length = row * ROW + 6, WIDTH * value / longest
        colour = "#2a6f97" if name.startswith("this pipeline") else "#b8c4cc"
        parts += [
            f'<text x="{LEFT - 10}" y="{top + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{length:.0f}" height="22" fill="{colour}"/>',
            f'<text x="{LEFT + length + 8:.0f}" y="{top + 15}">{value:.1f} s</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
