"""What `doit dom0` would do: the files that change, read by their own programs before they do."""

import difflib
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace

from pipeline import process
from pipeline.dom0.layout import Layout
from pipeline.dom0.setup.host_change import HOST, Plan, host_site
from pipeline.dom0.setup.host_entry import Entry, read_entry, write_entry
from pipeline.dom0.setup.host_file import HostFile, Part
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.parts import PARTS
from pipeline.errors import Finding, VerificationError
from pipeline.storage.transaction import work_folder


def plan_change(
    layout: Layout, settings: HostSettings, show: Callable[[Plan], None] = lambda _plan: None
) -> tuple[Plan, list[Finding]]:
    """The plan, and what the files' readers say of it; the caller holds `changing_host`.

    `show` gets it before the readers do, who may refuse it.

    Raises EnvironmentFault for a machine that is not Debian's, VerificationError where a reader
    refuses a file.
    """
    view = HostView.of(layout.root)
    files: dict[str, tuple[Entry | None, Entry | None]] = {}
    parts: list[Part] = []
    for part in PARTS:
        changed = dict(_changed(part, settings, view, files))
        if changed:
            parts.append(part)
            files.update({path: (old, new) for path, (old, new) in changed.items()})
            seen = {path: new.content if new else None for path, (_, new) in changed.items()}
            view = replace(view, changed={**view.changed, **seen})
    files = {path: states for path, states in files.items() if states[0] != states[1]}
    view = HostView.of(layout.root)
    commands = [command for part in parts for command in part.after(settings, view)]
    plan = Plan(view, settings, tuple(parts), files, tuple(dict.fromkeys(commands)))
    show(plan)
    findings = _ask_readers(layout, plan) if files else []
    errors = [str(finding) for finding in findings if finding.level == "error"]
    if errors:
        raise VerificationError(
            f"nothing was changed: {errors[0]}",
            details="\n".join(errors[1:]),
            hint="mend dom0.toml",
        )
    return plan, findings


def show_plan(plan: Plan, *, brief: bool) -> Iterator[str]:
    """In lines: each file as diff -u shows it or, `brief`, by its name; then the commands."""
    for path, (old, new) in plan.files.items():
        yield from [f"  {_word(old, new)} {path}"] if brief else _show_file(path, old, new)
    for command in plan.commands:
        yield f"  run {shlex.join(command)}"
    for text in dict.fromkeys(part.later for part in plan.parts if part.later):
        yield f"  {text}"


def _changed(
    part: Part,
    settings: HostSettings,
    view: HostView,
    files: dict[str, tuple[Entry | None, Entry | None]],
) -> Iterator[tuple[str, tuple[Entry | None, Entry | None]]]:
    """What a part makes otherwise than the host, or the parts before it, have it."""
    for file in part.render(settings, view):
        assert part.has_place(file.path), f"{part.name} renders {file.path}"
        old = read_entry(view.root / file.path.lstrip("/"))
        now = files[file.path][1] if file.path in files else old
        new = _make_entry(file, now, view)
        if new != now:
            yield file.path, (old, new)


def _make_entry(file: HostFile, now: Entry | None, view: HostView) -> Entry | None:
    if file.content is None:
        return None
    target = os.fsencode(file.link)
    new = Entry(target or file.content, bool(target), file.mode, os.geteuid(), os.getegid())
    if now is None or new.is_link:
        return now if now and now.is_link and now.content == target else new
    if now.is_link:  # an administrator's, which may lead to a file that is as it should be
        return now if view.read_bytes(file.path) == file.content else new
    return replace(now, content=file.content)


def _ask_readers(layout: Layout, plan: Plan) -> list[Finding]:
    """Each part's readers, in a copy of /etc with the new files."""
    with work_folder(host_site(layout, []).work_of(HOST)) as work:
        etc, tree = layout.root / "etc", work / "tree"
        tree.mkdir()
        if etc.is_dir():
            process.run(["cp", "-a", "--one-file-system", "--reflink=auto", etc, tree])
        for path, (_, new) in plan.files.items():
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            if new is not None:
                write_entry(place, new)
        return [
            finding for part in plan.parts for finding in part.check(plan.settings, plan.view, tree)
        ]


def _word(old: Entry | None, new: Entry | None) -> str:
    if new is None:
        return "remove"
    return "write" if old is None else "change"


def _show_file(path: str, old: Entry | None, new: Entry | None) -> Iterator[str]:
    kinds = [entry.kind if entry else "" for entry in (old, new)]
    if kinds[0] != kinds[1]:
        yield f"{_word(old, new)} {path}: {' -> '.join(filter(None, kinds))}"
    names = [path if entry else "/dev/null" for entry in (old, new)]
    yield from difflib.unified_diff(_lines(old), _lines(new), names[0], names[1], lineterm="")


def _lines(entry: Entry | None) -> list[str]:
    if entry is None or entry.is_link:
        return []
    return entry.content.decode(errors="surrogateescape").splitlines()
