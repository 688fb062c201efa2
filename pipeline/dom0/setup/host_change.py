"""Changes of the host by `doit dom0`, each a journalled transaction and kept until it is undone.

`host/changes/NNNN` in the state folder (mode 0700) has the files of before in `old/`, those of
after in `new/`, with owner, mode and times, and a table of them with the settings that they were
made of. The table is called `prepared.json` until the change is decided, `change.json` while it is
in force, and `undone.json` where it was taken back and that is not confirmed yet. An undo takes
back the last one: changes are a stack.

For other commands: `read_settings(layout)` is what is in force; `host_plan.plan_change(layout,
settings)` and `apply_change(layout, plan)`, both within `changing_host(layout)`, make the host so.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pipeline import process
from pipeline.console.progress import print_line
from pipeline.dom0.layout import Layout
from pipeline.dom0.setup.host_entry import (
    Entry,
    copy_entry,
    copy_state,
    digest_of,
    read_entry,
    require_changeable,
    write_entry,
)
from pipeline.dom0.setup.host_file import Command, Part
from pipeline.dom0.setup.host_settings import HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.parts import PARTS
from pipeline.errors import PipelineError, UsageError, VerificationError
from pipeline.files import damaged, read_table, take
from pipeline.storage.steps import Kind, Site, Step, remove_tree, rename
from pipeline.storage.transaction import Transaction, working_on, write_aside
from pipeline.walls.privacy import make_private_folder

HOST = "host"
Side = Literal["old", "new"]
_PREPARED, _IN_FORCE, _UNDONE = "prepared.json", "change.json", "undone.json"
_WHAT = "a change of the host"
_SOURCE = re.compile(r"\d{4}/(old|new)/\d{1,4}")


@dataclass(frozen=True)
class FileChange:
    """A path with its states by digest ("" is no file) before and after."""

    path: str
    was: str
    becomes: str


@dataclass(frozen=True)
class Change:
    """One change. `folders` are those that it makes, `generated` files that its commands write."""

    number: int
    settings: HostSettings
    parts: tuple[str, ...]
    files: tuple[FileChange, ...]
    folders: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()
    is_undone: bool = False

    @property
    def name(self) -> str:
        """Its folder's."""
        return f"{self.number:04}"


@dataclass(frozen=True)
class Plan:
    """What would be made of a host: its files with what they are and will be, None for no file.

    `commands` make the host take them up.
    """

    view: HostView
    settings: HostSettings
    parts: tuple[Part, ...] = ()
    files: dict[str, tuple[Entry | None, Entry | None]] = field(default_factory=dict)
    commands: tuple[Command, ...] = ()


@contextmanager
def changing_host(layout: Layout) -> Iterator[list[str]]:
    """While this is held nobody else changes the host; yields what was ended of the dead."""
    make_private_folder(layout.state / HOST)
    with working_on(host_site(layout, []), HOST) as done:
        yield done


def host_site(layout: Layout, troubles: list[PipelineError]) -> Site:
    """Where changes are noted; `troubles` gets what commands said that failed."""
    kinds = {
        "host-file": Kind(
            ("path", "source", "was", "becomes"), partial(_put, layout), _permits_file
        ),
        "host-folder": Kind(("path", "what"), partial(_switch_folder, layout), _permits_folder),
        "host-time": Kind(("path", "source"), partial(_keep_time, layout), _permits_generated),
        "host-after": Kind(
            ("change", "to"), partial(_take_up, layout, troubles), _permits_commands
        ),
    }
    return Site(
        state=layout.state,
        files=(),
        trees=(layout.state,),
        tag="",
        journal=f"{HOST}/{{}}.journal",
        lock=f"{HOST}/{{}}.lock",
        work=f"{HOST}/{{}}.work",
        record=f"{HOST}/changes",
        kinds=kinds,
    )


def list_changes(layout: Layout, *, undone: bool = False) -> list[Change]:
    """Those in force, the last at the end; with `undone` those too of which that is not sure."""
    names = (_IN_FORCE, _UNDONE) if undone else (_IN_FORCE,)
    tables = [path for name in names for path in _changes(layout).glob(f"[0-9]*/{name}")]
    return [_read(path) for path in sorted(tables)]


def next_number(layout: Layout) -> int:
    """What the next change is called."""
    return max([change.number for change in list_changes(layout, undone=True)], default=0) + 1


def read_settings(layout: Layout, *, before: int | None = None) -> HostSettings:
    """The settings in force, or those before a change."""
    made = [change for change in list_changes(layout) if before is None or change.number < before]
    return made[-1].settings if made else HostSettings()


def apply_change(layout: Layout, plan: Plan) -> Change:
    """Make the host as planned. Raises PipelineError before anything is changed, or in the end
    where a command that makes the host take up its files has failed."""
    root = layout.root
    for path in plan.files:
        require_changeable(root / path.lstrip("/"))
    generated = [path for part in plan.parts for path in part.generated]
    change = Change(
        number=next_number(layout),
        settings=plan.settings,
        parts=tuple(part.name for part in plan.parts),
        files=tuple(
            FileChange(path, old.digest if old else "", new.digest if new else "")
            for path, (old, new) in plan.files.items()
        ),
        folders=tuple(
            _missing_folders(root, [path for path, (_, new) in plan.files.items() if new])
        ),
        generated=tuple(path for path in generated if (root / path.lstrip("/")).is_file()),
    )
    folder = _changes(layout) / change.name
    troubles: list[PipelineError] = []
    with Transaction(host_site(layout, troubles), HOST, "set-up") as transaction:
        transaction.will_make(remove_tree(folder))
        _prepare(folder, change, plan, root)
        steps = [rename(folder / _PREPARED, folder / _IN_FORCE), *_steps(change, "new")]
        transaction.commit(steps)
    _raise_first(troubles)
    return change


def find_edited(layout: Layout, change: Change) -> list[str]:
    """The files that somebody else has changed since; our own commands write menu.lst anew."""
    return [
        file.path
        for file in change.files
        if file.path not in change.generated
        and digest_of(layout.root / file.path.lstrip("/")) not in (file.was, file.becomes)
    ]


def require_last(layout: Layout) -> Change:
    """The change that an undo takes back; raises UsageError where there is none."""
    changes = list_changes(layout)
    if not changes:
        raise UsageError("nothing was changed by doit dom0 that could be undone", hint="doit dom0")
    return changes[-1]


def undo_change(layout: Layout, change: Change, *, replaces: bool, keeps: bool = False) -> None:
    """The host as it was before. With `keeps` the change can be made again by `redo_change`.

    Raises VerificationError for files that somebody else has changed since, unless it `replaces`
    them: they are kept aside then.
    """
    edited = find_edited(layout, change)
    if edited and not replaces:
        raise VerificationError(
            f"{edited[0]} was changed since by somebody else",
            details="\n".join(edited[1:]),
            hint="replace=yes takes it back all the same and keeps a copy",
        )
    _switch(layout, change, "old", is_final=not keeps)


def redo_change(layout: Layout, change: Change) -> None:
    """An undo taken back."""
    _switch(layout, change, "new", is_final=False)


def forget_undone(layout: Layout) -> None:
    """The undo is for good."""
    for change in list_changes(layout, undone=True):
        if change.is_undone:
            with Transaction(host_site(layout, []), HOST, "the undo") as transaction:
                transaction.commit([remove_tree(_changes(layout) / change.name)])


def commands_after(layout: Layout, parts: Iterable[str], settings: HostSettings) -> list[Command]:
    """What makes the host take up the files of these parts."""
    view = HostView.of(layout.root)
    made = [command for part in named_parts(parts) for command in part.after(settings, view)]
    return list(dict.fromkeys(made))


def _switch(layout: Layout, change: Change, to: Side, *, is_final: bool) -> None:
    folder = _changes(layout) / change.name
    here, there = (_IN_FORCE, _UNDONE) if to == "old" else (_UNDONE, _IN_FORCE)
    troubles: list[PipelineError] = []
    with Transaction(host_site(layout, troubles), HOST, "the undo") as transaction:
        last = [remove_tree(folder)] if is_final else []
        first = rename(folder / here, folder / there)
        transaction.commit([first, *_steps(change, to), *last])
    _raise_first(troubles)


def _raise_first(troubles: list[PipelineError]) -> None:
    if troubles:
        error = troubles[0]
        raise PipelineError(
            f"the files are in place, but {error.brief}",
            details=error.details,
            hint="mend it and run the command by hand; or doit dom0 undo=yes",
        ) from error


def _prepare(folder: Path, change: Change, plan: Plan, root: Path) -> None:
    """The change's folder with everything that its steps put in place."""
    make_private_folder(folder.parent)
    for name in ("", "old", "new"):
        make_private_folder(folder / name)
    for number, (path, (old, new)) in enumerate(plan.files.items()):
        real = root / path.lstrip("/")
        if old is not None:
            copy_entry(real, folder / "old" / str(number))
            if digest_of(folder / "old" / str(number)) != old.digest:
                raise VerificationError(f"{path} was changed a moment ago", hint="try it again")
        elif digest_of(real):
            raise VerificationError(f"{path} was made a moment ago", hint="try it again")
        if new is not None:
            write_entry(folder / "new" / str(number), new, like=real)
    for number, path in enumerate(change.generated, len(plan.files)):
        copy_entry(root / path.lstrip("/"), folder / "old" / str(number))
    # a default need not be a value that its key takes
    settings = change.settings.model_dump(mode="json", exclude_defaults=True)
    table = {**asdict(change), "settings": settings}
    write_aside(folder / _PREPARED, json.dumps(table, indent=1).encode())
    assert _read(folder / _PREPARED) == change


def _read(path: Path) -> Change:
    """A change by its table; raises Damaged for what we never wrote."""
    try:
        table = read_table(path, _WHAT)
        files = tuple(FileChange(**row) for row in take(table, "files", list))
        lists = {key: tuple(take(table, key, list)) for key in ("parts", "folders", "generated")}
        settings = HostSettings.model_validate(take(table, "settings", dict))
        number = take(table, "number", int)
        texts = [*lists["parts"], *lists["folders"], *lists["generated"]]
        texts += [text for file in files for text in (file.path, file.was, file.becomes)]
        if not all(type(text) is str for text in texts) or f"{number:04}" != path.parent.name:
            raise ValueError("it is of another form")
    except (ValueError, TypeError, ValidationError) as error:
        raise damaged(path, _WHAT, error) from error
    return Change(number, settings, files=files, is_undone=path.name == _UNDONE, **lists)


def _changes(layout: Layout) -> Path:
    return layout.state / HOST / "changes"


def named_parts(names: Iterable[str]) -> list[Part]:
    """Those of these names, in order."""
    wanted = set(names)
    return [part for part in PARTS if part.name in wanted]


def _missing_folders(root: Path, paths: Iterable[str]) -> Iterator[str]:
    """Folders that are to be made, the outer ones first."""
    missing = {
        str(parent)
        for path in paths
        for parent in Path(path).parents
        if not (root / str(parent).lstrip("/")).exists()
    }
    return iter(sorted(missing))


def _steps(change: Change, to: Side) -> list[Step]:
    """From one state of the host to the other, each of which may be repeated."""
    name = change.name
    files = []
    for number, file in enumerate(change.files):
        was, becomes = (file.was, file.becomes)[:: 1 if to == "new" else -1]
        source = f"{name}/{to}/{number}" if becomes else ""
        step = {"kind": "host-file", "path": file.path, "source": source}
        files.append({**step, "was": was, "becomes": becomes})
    what = "make" if to == "new" else "drop"
    folders = [{"kind": "host-folder", "path": path, "what": what} for path in change.folders]
    after = {"kind": "host-after", "change": name, "to": to}
    if to == "new":
        return [*folders, *files, after]
    times = [
        {"kind": "host-time", "path": path, "source": f"{name}/old/{number}"}
        for number, path in enumerate(change.generated, len(change.files))
    ]
    return [*reversed(files), *reversed(folders), after, *times]


def _put(layout: Layout, _site: Site, _host: str, step: Step) -> None:
    path = layout.root / step["path"].lstrip("/")
    source = _changes(layout) / step["source"]
    now = digest_of(path)
    if now == step["becomes"]:
        return
    if now != step["was"]:
        _keep(layout, path, step["path"])
    if not step["source"]:
        path.unlink(missing_ok=True)
    elif read_entry(source) is not None:
        copy_entry(source, path)


def _keep(layout: Layout, path: Path, name: str) -> None:
    """A file that somebody else has changed, aside: no program looks there for configurations."""
    kept = layout.state / HOST / "kept" / name.lstrip("/")
    if read_entry(path) is None:
        return
    make_private_folder(layout.state / HOST / "kept")
    kept.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while (there := read_entry(kept)) is not None and there != read_entry(path):
        number += 1
        kept = kept.with_name(f"{path.name}.{number}")
    copy_entry(path, kept)
    print_line(f"  {name} had been changed by somebody else: kept as {kept}")


def _switch_folder(layout: Layout, _site: Site, _host: str, step: Step) -> None:
    path = layout.root / step["path"].lstrip("/")
    with suppress(FileExistsError, OSError):
        if step["what"] == "make":
            path.mkdir(mode=0o755)
            path.chmod(0o755)
        else:
            path.rmdir()


def _keep_time(layout: Layout, _site: Site, _host: str, step: Step) -> None:
    """A generated file that is as it was gets its time back; another one is as new as it is."""
    path, source = layout.root / step["path"].lstrip("/"), _changes(layout) / step["source"]
    if read_entry(source) is not None and digest_of(source) == digest_of(path):
        copy_state(source, path)


def _take_up(
    layout: Layout, troubles: list[PipelineError], _site: Site, _host: str, step: Step
) -> None:
    """The commands; one that fails does not keep a change from its end."""
    folder = _changes(layout) / step["change"]
    path = folder / (_IN_FORCE if step["to"] == "new" else _UNDONE)
    if not path.exists() or layout.root != Path("/"):
        return
    change = _read(path)
    is_new = step["to"] == "new"
    settings = change.settings if is_new else read_settings(layout, before=change.number)
    for command in commands_after(layout, change.parts, settings):
        try:
            process.run(command, is_cleanup=True)
        except PipelineError as error:
            print_line(f"  {shlex.join(command)}: {error.brief}")
            troubles.append(error)


def _permits_file(step: Step) -> bool:
    is_source = not step["source"] or _SOURCE.fullmatch(step["source"]) is not None
    return is_source and any(part.has_place(step["path"]) for part in PARTS)


def _permits_folder(step: Step) -> bool:
    """A folder above a place of ours."""
    path = f"{step['path']}/"
    above = any(place.startswith(path) for part in PARTS for place in part.places)
    return above and step["what"] in ("make", "drop") and "/../" not in path


def _permits_generated(step: Step) -> bool:
    is_ours = any(step["path"] in part.generated for part in PARTS)
    return is_ours and _SOURCE.fullmatch(step["source"]) is not None


def _permits_commands(step: Step) -> bool:
    return re.fullmatch(r"\d{4}", step["change"]) is not None and step["to"] in ("old", "new")
