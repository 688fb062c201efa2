"""What is said when a build has ended: what there is now, how to start it and how to log in."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.console.answer import ANSWER
from pipeline.console.progress import count_warnings, print_line, print_table
from pipeline.console.terminal import Part, Span, Style
from pipeline.guest.login import NOBODY, Login

_STYLES: Mapping[str, Style] = {"built": "ok", "reused": "ok", "failed": "error"}
Facts = Mapping[str, Any]


def print_summary(seconds: float) -> None:
    """A screen at most: of one guest what a person needs, of several a line each."""
    guests = [facts for facts in ANSWER.guests.values() if "state" in facts]
    if len(guests) == 1:
        if "folder" in guests[0]:
            _print_guest(guests[0], seconds)
    elif any("folder" in facts or facts["state"] == "failed" for facts in guests):
        _print_guests(guests, seconds)


def show_size(count: int) -> str:
    """Bytes as people say them."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.2f} GiB"
    return f"{count / (1 << 20):.0f} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def _print_guest(facts: Facts, seconds: float) -> None:
    print_line(Span(f"{facts['guest']} is ready", "ok"), f" in {facts['folder']}, {seconds:.0f} s")
    rows: list[tuple[str, Part]] = [
        ("made:", _stages(facts, "built")),
        ("reused:", _stages(facts, "reused")),
    ]
    rows += [("size:", f"{show_size(facts['bytes'])} on disk"), ("start it:", facts["start"])]
    rows += [("import it:", facts["give"])]
    login = Login(**facts["login"])
    is_open = login.lines != [NOBODY]
    rows += [("log in:", Span(line, "" if is_open else "warning")) for line in login.lines]
    if not is_open:
        rows.append(("next:", login.finding.hint))
    warnings = count_warnings()
    rows += [("warnings:", f"{warnings}, above")] if warnings else []
    print_table([(name, text) for name, text in rows if str(text)], indent=2)


def _stages(facts: Facts, outcome: str) -> str:
    return ", ".join(stage["stage"] for stage in facts["stages"] if stage["outcome"] == outcome)


def _print_guests(guests: Sequence[Facts], seconds: float) -> None:
    ready = [facts for facts in guests if "folder" in facts]
    print_line(f"{len(ready)} of {len(guests)} guests are ready, {seconds:.0f} s")
    print_table([_row(facts) for facts in guests], head=_HEAD, indent=2)
    if ready:
        print_line("  start one: xl create FOLDER/NAME.cfg; log in: doit ssh name=NAME")
    closed = [facts["guest"] for facts in ready if Login(**facts["login"]).lines == [NOBODY]]
    if closed:
        print_line("  ", Span(f"nobody can log in to {', '.join(closed)}", "warning"))
    if warnings := count_warnings():
        print_line(f"  warnings: {warnings}, the lines above that say so")


_HEAD = ("guest", "", "after", "size", "folder")


def _row(facts: Facts) -> tuple[Part, ...]:
    state = Span(facts["state"], _STYLES.get(facts["state"], ""))
    if "folder" not in facts:
        why = facts["failures"][0] if facts.get("failures") else {"subject": "", "message": ""}
        text = ": ".join(part for part in (why["subject"], why["message"]) if part)
        return facts["guest"], state, "", "", text
    size, after = show_size(facts["bytes"]), f"{facts.get('seconds', 0.0):.0f} s"
    return facts["guest"], state, after, size, Span(facts["folder"], "dim")
