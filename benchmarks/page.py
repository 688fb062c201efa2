"""What was measured, as Markdown, and its places in docs/explanation/performance.md."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.contenders import PACKAGES, PEER, SUITE, Contender
from benchmarks.many_guests import Many
from benchmarks.measurement import ROOT, Costs

PAGE = ROOT / "docs" / "explanation" / "performance.md"


def render(contenders: Sequence[Contender], warm: Mapping[str, Costs], many: Many | None) -> str:
    """All tables; ratios are to xen-create-image."""
    peer = next((one.costs.seconds for one in contenders if one.name == PEER), None)
    parts = [_cold(contenders, peer), _profile(contenders), _warm(warm, peer)]
    return "\n".join([*parts, *([_many(many)] if many else [])])


def _ratio(seconds: float, peer: float | None, digits: int) -> str:
    return f"{seconds / peer:.{digits}f}" if peer else "-"


def _cold(contenders: Sequence[Contender], peer: float | None) -> str:
    lines = [
        f"{SUITE}, 4G, DHCP, {', '.join(PACKAGES)}; run in turn, medians.\n",
        "| cold build | rounds | time | ratio | processor | written | memory | image | packages |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in contenders:
        costs = one.costs
        lines.append(
            f"| {one.name} | {len(costs.runs)} | {costs.seconds:.1f} s "
            f"| {_ratio(costs.seconds, peer, 2)} | {costs.cpu_seconds:.1f} s "
            f"| {costs.written_mib:.0f} MiB | {costs.memory_mib:.0f} MiB "
            f"| {one.size_mib} MiB | {len(one.packages)} |"
        )
    lines.append(
        "\nWritten: bytes given to disks (a tmpfs is none). Memory: what the machine had less at "
        "the worst moment, tmpfs included. Image: space that the disk takes."
    )
    return "\n".join(lines) + "\n"


def _profile(contenders: Sequence[Contender]) -> str:
    runs = next((one.stages for one in contenders if one.stages), [])
    names = list(dict.fromkeys(name for run in runs for name in run))
    lines = ["| stage of our cold build | time |", "|---|---|"]
    for name in names:
        seconds = statistics.median(run[name] for run in runs if name in run)
        beside = " (beside base)" if name == "kernel" else ""
        lines.append(f"| {name}{beside} | {seconds:.1f} s |")
    return "\n".join(lines) + "\n"


def _warm(warm: Mapping[str, Costs], peer: float | None) -> str:
    lines = ["| warm, whole process | time | ratio | written |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {one.seconds:.2f} s | {_ratio(one.seconds, peer, 4)} "
        f"| {one.written_mib:.0f} MiB |"
        for name, one in warm.items()
    ]
    return "\n".join(lines) + "\n"


def _many(many: Many) -> str:
    return (
        f"{many.guests} guests from {many.golden} golden images, {many.cores} cores: one command "
        f"for all {many.together:.1f} s; one command each, in turn, {many.alone:.1f} s. That is "
        f"{many.to_parts:.2f} times the parts divided by the cores, and {many.to_work:.2f} times "
        f"its own processor time divided by the cores.\n"
    )


def write(place: str, text: str, path: Path = PAGE) -> None:
    """Put text between the marks of a place in docs/explanation/performance.md, or another page."""
    begin, end = f"<!-- {place} of benchmarks: begin -->", f"<!-- {place} of benchmarks: end -->"
    page = path.read_text()
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise SystemExit(f"{path}: the marks of '{place}' are not there")
    path.write_text(f"{head}{begin}\n\n{text}\n{end}{tail}")
