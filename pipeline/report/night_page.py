"""The night's page: what is drawn and shown beside what report.json holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.decisions import describe_outlier
from pipeline.report.night_model import FileChange, GuestReport, NightReport, PackageSize
from pipeline.report.page import render_template
from pipeline.report.treemap import Tile, lay_out
from pipeline.report.trend import HEIGHT, WIDTH, Plot
from pipeline.report.words import size

MOST_TILES, MOST_OF_A_PACKAGE = 60, 25
# a wide and a narrow one: the style sheet shows what fits
_MAPS = (("wide-map", 960.0, 380.0, 7.2), ("narrow-map", 340.0, 460.0, 6.8))
_NAMES = {"": "files of no package"}
_MARKS = {"changed": "▲ ", "added": "+ ", "": ""}
TITLES = {"boot_s": "Boot", "build_s": "Build", "image_bytes": "Image on disk"}
VERDICTS = {
    "published": "ok",
    "unchanged": "same",
    "failed": "error",
    "broken": "error",
    "not begun": "warning",
}


@dataclass(frozen=True)
class Sheet:
    """What a guest's section shows besides its report; `picture` is a PNG in base64, "" without."""

    report: GuestReport
    plots: tuple[Plot, ...] = ()
    picture: str = ""

    @property
    def files(self) -> Mapping[str, Sequence[FileChange]]:
        """The first files by their package."""
        groups: dict[str, list[FileChange]] = {
            group.owner: [] for group in self.report.files.groups
        }
        for change in self.report.files.listed:
            if change.owner in groups and len(groups[change.owner]) < MOST_OF_A_PACKAGE:
                groups[change.owner].append(change)
        return groups


@dataclass(frozen=True)
class Labelled:
    """A tile of the treemap with its words; `label` is "" where there is no room."""

    tile: Tile
    name: str
    size_bytes: int
    change: str
    label: str
    sub: str


def draw_maps(sizes: Sequence[PackageSize]) -> list[tuple[str, float, float, list[Labelled]]]:
    """The treemap in each of its forms: class, width, height, tiles."""
    shown = _fold(sizes)
    return [
        (name, width, height, _label(shown, width, height, letter))
        for name, width, height, letter in _MAPS
    ]


def _fold(sizes: Sequence[PackageSize]) -> list[PackageSize]:
    """The largest, and one for all others."""
    rest = sum(entry.size_bytes for entry in sizes[MOST_TILES:])
    shown = [*sizes[:MOST_TILES]]
    if rest:
        shown.append(PackageSize(f"{len(sizes) - MOST_TILES} smaller ones", rest))
    return sorted(shown, key=lambda entry: -entry.size_bytes)


def _label(
    sizes: Sequence[PackageSize], width: float, height: float, letter: float
) -> list[Labelled]:
    tiles = lay_out([entry.size_bytes for entry in sizes], width, height)
    labelled = []
    for entry, tile in zip(sizes, tiles, strict=True):
        name = _NAMES.get(entry.name, entry.name)
        label = f"{_MARKS[entry.change]}{name}"
        most = int(tile.width / letter - 1.5)
        if not tile.fits(label, letter):
            label = f"{label[: most - 1]}…" if most > 4 and tile.fits("", letter) else ""
        has_sub = label and tile.height > 5.5 * letter and tile.width > 10 * letter
        sub = size(entry.size_bytes) if has_sub else ""
        labelled.append(Labelled(tile, name, entry.size_bytes, entry.change, label, sub))
    return labelled


def render_night(night: NightReport, sheets: Sequence[Sheet]) -> str:
    """The HTML of a night."""
    verdicts = dict.fromkeys(VERDICTS, 0)
    for guest in night.guests:
        verdicts[guest.verdict] += 1
    return render_template(
        "night.html.j2",
        ("page.css", "night.css"),
        night=night,
        sheets=sheets,
        numbers={guest.guest: number for number, guest in enumerate(night.guests, 1)},
        verdicts={verdict: number for verdict, number in verdicts.items() if number},
        classes=VERDICTS,
        titles=TITLES,
        draw_maps=draw_maps,
        plot_size=(WIDTH, HEIGHT),
        describe_outlier=describe_outlier,
        is_size={"image_bytes": True, "boot_s": False, "build_s": False},
    )
