"""`doit import`: specs of configurations that others have made, file by file."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.caller import shorten_path
from pipeline.commands.foreign_options import Import
from pipeline.commands.site import write_defaults
from pipeline.console.answer import ANSWER
from pipeline.console.findings import print_findings
from pipeline.console.progress import print_line
from pipeline.errors import PipelineError, UsageError
from pipeline.files import read_named_text
from pipeline.foreign.import_file import Imported, import_text
from pipeline.foreign.import_spec import BRING
from pipeline.foreign.import_text import kind_of
from pipeline.recipe import Recipe
from pipeline.spec.xen_create_image.partitions import read_partitions_file

_MOST_FILES = 1000
_MOST_BYTES = 256 << 10


def import_files(recipe: Recipe, _specs: object, asked: Import) -> None:
    """A spec for each configuration; one that makes none does not stop the others."""
    files = list(_find_files(asked.file))
    if asked.name and len(files) > 1:
        raise UsageError(f"name={asked.name} for {len(files)} files", hint="name them one by one")
    failed: list[PipelineError] = []
    taken: dict[str, Path] = {}
    for path, is_named in files:
        try:
            _import_one(recipe, asked, path, taken, is_named=is_named)
        except PipelineError as error:
            failed.append(error)
            if len(files) > 1:
                print_line(f"{error.brief}")
                for line in filter(None, (*error.details.splitlines(), error.hint)):
                    print_line(f"    {line}")
    if len(files) == 1 and failed:
        raise failed[0]
    if failed:
        raise UsageError(
            f"{len(failed)} of {len(files)} files made no spec",
            details="\n".join(str(error) for error in failed),
            hint="what is wrong stands above; the others are done",
        )
    if not taken:
        return
    print_line("next:" if not asked.dry else "nothing was written (dry=yes)")
    if not asked.dry:
        print_line("  doit plan name=NAME     what a build would make: a new guest, on new disks")
        print_line(f"  of an imported guest {BRING}")


def _find_files(named: tuple[Path, ...]) -> Iterator[tuple[Path, bool]]:
    """The files, those of a folder by name, and whether each was named itself."""
    for path in named:
        if not os.path.isdir(path):
            yield path, True
            continue
        inner = sorted(entry for entry in path.iterdir() if entry.is_file())
        if len(inner) > _MOST_FILES:
            raise UsageError(f"{path}: more than {_MOST_FILES} files", hint="name some of them")
        yield from ((entry, False) for entry in inner if entry.name[:1] != ".")


def _import_one(
    recipe: Recipe, asked: Import, path: Path, taken: dict[str, Path], *, is_named: bool
) -> None:
    text = _read(path)
    kind = kind_of(text)
    if kind == "none" or (kind == "libvirt" and not is_named and "<domain" not in text):
        if is_named:
            hint = "a guest has name =, and kernel =, bootloader = or type ="
            raise UsageError(f"{path}: this is no guest's configuration", hint=hint)
        print_line(f"{shorten_path(path)}: no guest's configuration, left alone")
    elif kind == "xen-tools":
        write_defaults(recipe.project, path, replace=asked.replace, dry=asked.dry)
    elif kind == "partitions":
        _show_partitions(path)
    else:
        _import_guest(recipe, asked, path, text, taken)


def _read(path: Path) -> str:
    try:
        return read_named_text(path, most=_MOST_BYTES)
    except UsageError as error:
        if "UTF-8" not in error.brief:
            raise
        hint = f"if it is latin-1: iconv -f latin1 -t utf-8 {path} >NEW, and import that"
        raise UsageError(error.brief, hint=hint) from error


def _show_partitions(path: Path) -> None:
    """xen-tools' partition files are read by specs as they are."""
    tables = read_partitions_file(path)
    print_line(f'{path}: partitions; a spec reads the file itself: partitions = "{path}"')
    for table in tables:
        print_line("  ", ", ".join(f"{key} = {value}" for key, value in table.items()))


def _import_guest(
    recipe: Recipe, asked: Import, path: Path, text: str, taken: dict[str, Path]
) -> None:
    guests = recipe.project.guests
    imported = import_text(
        text, path, guests, name=asked.name or "", suite=asked.suite or "", replaces=asked.replace
    )
    name = imported.spec.spec.name
    if name in taken:
        raise UsageError(
            f"{path}: {name} is the guest of {taken[name]} too", hint="name=... for one of them"
        )
    taken[name] = path
    text = imported.spec.render(imported.spec.layer)
    if not asked.dry:
        imported.spec.write(replaces=asked.replace)
    if asked.json_form:
        facts = {"source": str(path), "kind": imported.kind, "spec": str(imported.spec.path)}
        ANSWER.add_findings(name, imported.findings, counts=imported.counts, text=text, **facts)
    else:
        _show(imported, text if asked.dry else "")


def _show(imported: Imported, text: str) -> None:
    shown = ", ".join(f"{count} {outcome}" for outcome, count in imported.counts.items())
    path = shorten_path(imported.spec.path)
    print_line(f"{imported.source} ({imported.kind}) -> {path}: {shown}")
    print_findings(imported.findings)
    if text:
        print_line(text)
