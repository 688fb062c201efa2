"""What a person has to decide after a night, the most urgent first."""

from collections.abc import Iterator

from pipeline.report.night_model import Decision, GuestReport, Metric, Outlier
from pipeline.report.outcome import Night
from pipeline.report.words import count, name_cves, seconds, short_version, size

_GREW, _GREW_BYTES = 0.10, 16 << 20
_RANK = {"error": 0, "warning": 1, "notice": 2}
NAMES: dict[Metric, str] = {
    "boot_s": "boot time",
    "build_s": "build time",
    "image_bytes": "image size",
}


def find_decisions(night: Night, guests: tuple[GuestReport, ...]) -> tuple[Decision, ...]:
    """Failures, then what is far from usual, then what can be promoted."""
    decisions = [*_judge_night(night), *(one for guest in guests for one in _judge_guest(guest))]
    return tuple(sorted(decisions, key=lambda decision: _RANK[decision.level]))


def _judge_night(night: Night) -> Iterator[Decision]:
    if not night.is_complete:
        left = sum(guest.verdict == "not begun" for guest in night.guests)
        text = "the night ended early" + (f": {count(left, 'guest')} not begun" if left else "")
        yield Decision("warning", "", text)


def _judge_guest(guest: GuestReport) -> Iterator[Decision]:
    if guest.verdict in ("failed", "broken"):
        yield Decision("error", guest.guest, explain_failure(guest))
    for outlier in guest.outliers:
        # a build takes what changed, and nobody minds what has become faster
        is_usual = outlier.metric == "build_s" or outlier.value < outlier.median
        if outlier.metric == "image_bytes" or not is_usual:
            yield Decision("warning", guest.guest, describe_outlier(outlier))
    if growth := _describe_growth(guest):
        yield Decision("warning", guest.guest, growth)
    stable = guest.channels.get("stable", "")
    if stable and guest.version and stable < guest.version:
        text = "stable is older than nightly"
        if guest.pending_cves:
            text += f": nightly has fixes for {name_cves(guest.pending_cves)}"
        yield Decision(
            "warning" if guest.pending_cves else "notice",
            guest.guest,
            text,
            f"doit promote name={guest.guest}",
        )
    elif guest.cves and guest.verdict == "published":
        yield Decision("notice", guest.guest, f"published with fixes for {name_cves(guest.cves)}")


def explain_failure(guest: GuestReport) -> str:
    """What went wrong, in a line: the likely cause where one is known."""
    failure = guest.failure
    if failure is None:
        return f"{guest.verdict}, and nobody says why"
    where = f"{failure.stage}: " if failure.stage else ""
    cause = f" ({failure.causes[0]})" if failure.causes else ""
    stays = f"; {short_version(guest.version)} stays" if guest.version else "; nothing is published"
    fault = "" if guest.verdict == "failed" else "not the guest's fault: "
    return f"{fault}{where}{failure.brief}{cause}{stays}"


def _describe_growth(guest: GuestReport) -> str:
    """A disk that is much larger or smaller than the version before, on any night."""
    now, was = guest.metrics.get("image_bytes", 0), guest.bytes_before
    is_told = any(outlier.metric == "image_bytes" for outlier in guest.outliers)
    if not was or not now or is_told or abs(now - was) < max(_GREW * was, _GREW_BYTES):
        return ""
    return f"the image {'grew' if now > was else 'shrank'} from {size(was)} to {size(now)}"


def describe_outlier(outlier: Outlier) -> str:
    """One measure and what it used to be."""
    show = size if outlier.metric == "image_bytes" else seconds
    return (
        f"{NAMES[outlier.metric]} {show(outlier.value)}, usually {show(outlier.median)} "
        f"(median of {outlier.nights} nights)"
    )
