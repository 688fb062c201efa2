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


def draw_lines(series: Mapping[str, Mapping[int, float]], *, title: str, across: str) -> str:
    """Name -> what is across -> seconds; each doubling is a step to the right."""
    steps = sorted({step for line in series.values() for step in line})
    most = max(value for line in series.values() for value in line.values())
    left, top, width, height = 70, 50, 480, 300
    colours = ("#2a6f97", "#b8c4cc", "#d1495b", "#66a182")

    def place(step: int, value: float) -> tuple[float, float]:
        across = steps.index(step) / max(1, len(steps) - 1)
        return left + width * across, top + height * (1 - value / most)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 290}" '
        f'height="{top + height + 60}" font-family="sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="{ROW - 10}" font-weight="bold">{escape(title)}</text>',
        f'<text x="{left + width / 2}" y="{top + height + 46}" text-anchor="middle">'
        f"{escape(across)}</text>",
    ]
    for step in steps:
        x, y = place(step, 0)
        parts.append(f'<text x="{x:.0f}" y="{y + 22:.0f}" text-anchor="middle">{step}</text>')
    for quarter in range(5):
        x, y = place(steps[0], most * quarter / 4)
        parts += [
            f'<line x1="{left}" x2="{left + width}" y1="{y:.0f}" y2="{y:.0f}" stroke="#e4e8eb"/>',
            f'<text x="{left - 8}" y="{y + 5:.0f}" text-anchor="end">'
            f"{most * quarter / 4:.0f} s</text>",
        ]
    for number, (name, line) in enumerate(series.items()):
        colour = colours[number % len(colours)]
        points = [place(step, value) for step, value in sorted(line.items())]
        text = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
        label = top + 20 + ROW * number
        parts += [
            f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="3"/>',
            *(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="{colour}"/>' for x, y in points),
            f'<rect x="{left + width + 20}" y="{label - 11}" width="14" height="14" '
            f'fill="{colour}"/>',
            f'<text x="{left + width + 42}" y="{label + 1}">{escape(name)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
