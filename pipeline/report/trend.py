"""A measure over the nights: read from earlier reports, judged by the median, drawn as a line.

A value is an outlier where it is further from the median than 3.5 times 1.4826 MAD, the median of
the distances (Iglewicz and Hoaglin, 1993), and further than what nobody would notice.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import read_table
from pipeline.report.night_model import FORM, Metric

NIGHTS = 30
FEWEST = 5  # nights before tonight's value is judged
REPORT = "report.json"
_REPORT_BYTES = 24 << 20
_FAR = 3.5 * 1.4826
# what is noticed: a share of the median, and so much
_NOTICED: Mapping[Metric, tuple[float, float]] = {
    "boot_s": (0.25, 2.0),
    "build_s": (0.5, 5.0),
    "image_bytes": (0.05, float(4 << 20)),
}
WIDTH, HEIGHT = 300.0, 96.0
_TOP, _BOTTOM, _LEFT, _RIGHT = 8.0, 6.0, 6.0, 8.0


@dataclass(frozen=True)
class Earlier:
    """What an earlier report says of one guest; `cves` are those that its new version fixed."""

    night: str
    version: str
    metrics: Mapping[Metric, float]
    cves: tuple[str, ...]


@dataclass(frozen=True)
class Dot:
    """One night in a plot: where, what and whether it is far from the others."""

    x: float
    y: float
    night: str
    value: float
    is_outlier: bool


@dataclass(frozen=True)
class Plot:
    """A line of dots, WIDTH by HEIGHT; `middle` is where the median is."""

    metric: Metric
    dots: tuple[Dot, ...]
    median: float
    middle: float

    @property
    def line(self) -> str:
        """The points of a polyline."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


def read_earlier(reports: Path, *, before: str) -> dict[str, list[Earlier]]:
    """Guest to its nights, oldest first: of the last reports but `before` and later ones.

    A report that cannot be read is passed over: it is a record of the past, nothing depends on it.
    """
    guests: dict[str, list[Earlier]] = {}
    places = sorted(path.parent for path in reports.glob(f"*/{REPORT}"))
    for place in [path for path in places if path.name < before][1 - NIGHTS :]:
        try:
            table = read_table(place / REPORT, "a night's report", limit=_REPORT_BYTES)
        except (OSError, PipelineError):
            continue
        for guest, earlier in _read_guests(place.name, table):
            guests.setdefault(guest, []).append(earlier)
    return guests


def _read_guests(night: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Earlier]]:
    rows = table.get("guests", ()) if table.get("form") == FORM else ()
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue
        metrics, cves = row.get("metrics"), row.get("cves")
        numbers = metrics if isinstance(metrics, dict) else {}
        values = {metric: numbers[metric] for metric in _NOTICED if _is_number(numbers.get(metric))}
        named = tuple(map(str, cves)) if isinstance(cves, list) else ()
        yield str(row.get("guest")), Earlier(night, str(row.get("version")), values, named)


def _is_number(value: object) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value) and value >= 0  # type: ignore[operator,arg-type]


def is_far(metric: Metric, value: float, others: Sequence[float]) -> bool:
    """Whether a value stands out from others, of which there have to be FEWEST."""
    if len(others) < FEWEST:
        return False
    median = statistics.median(others)
    spread = statistics.median(abs(other - median) for other in others)
    share, least = _NOTICED[metric]
    return abs(value - median) > max(_FAR * spread, share * median, least)


def draw_plot(metric: Metric, nights: Sequence[tuple[str, float]]) -> Plot:
    """A plot of (night, value), oldest first; the highest value at the top, 0 or less below."""
    values = [value for _, value in nights]
    low, high = min(values), max(values)
    # what differs by less than a tenth is no mountain
    span = max(high - low, high * 0.1, 1e-9)
    low, high = max(0.0, (low + high) / 2 - span * 0.65), (low + high) / 2 + span * 0.65
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(nights) - 1)

    def height_of(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    median = statistics.median(values)
    dots = [
        Dot(
            x=WIDTH - _RIGHT - step * (len(nights) - 1 - at),
            y=height_of(value),
            night=night,
            value=value,
            is_outlier=is_far(metric, value, values[:at] + values[at + 1 :]),
        )
        for at, (night, value) in enumerate(nights)
    ]
    return Plot(metric, tuple(dots), median, height_of(median))
