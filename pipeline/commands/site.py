"""A user's own folder: made, and filled with what xen-tools' configuration said."""

import os
import platform
import pwd
import tomllib
from pathlib import Path
from typing import Any

from pipeline import ROOT
from pipeline.caller import caller_folder, typed_name
from pipeline.commands.site_options import ImportXenTools, Init
from pipeline.console.progress import print_line
from pipeline.errors import EnvironmentFault, UsageError
from pipeline.files import read_named_text, write_durably
from pipeline.interruption import gate
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.site import MARKER, SCHEMA
from pipeline.spec.layers import DEFAULTS
from pipeline.spec.load import list_guests
from pipeline.spec.xen_create_image.conf_file import read_conf, render_defaults, translate_conf
from pipeline.walls.privacy import make_private_folder

_FOLDERS = {
    "guests": "a file a guest, NAME.toml; defaults.toml is for all of them",
    "elements": "your diskimage-builder elements; one of the same name as a shipped one wins",
    "mirrors": "named mirrors, NAME.toml",
    "appliances": "definitions of appliances",
    "secrets": "files that no other user may read: keys, passwords",
    "output": "all that is made; nothing in it has to be kept twice",
}
_FILES = {
    # the marker comes first: what was begun can be gone on with
    MARKER: """\
# This folder is a site of the DomU pipeline. Its commands use it when you stand in it, or with
# DOMU_SITE in the environment.
version = 1
""",
    ".gitignore": f"/output/\n/secrets/\n/keys/\n/fleet/\n/{SCHEMA}\n",
    f"guests/{DEFAULTS}.toml": f"""\
#:schema ../{SCHEMA}
# What all guests share. A guest's own file wins over this one, the command line over both.
# suite = "bookworm"
# bridge = "br-xen"
# authorized_keys = ["~/.ssh/id_ed25519.pub"]
""",
}


def init(_recipe: Recipe, _specs: object, asked: Init) -> None:
    """Make a site, or what a site lacks."""
    site = asked.folder or caller_folder()
    is_new = not (site / MARKER).exists()
    _refuse(site, is_new=is_new)
    made = _make(site)
    print_line(f"{site} is {'now' if is_new else 'already'} a site")
    for path in made if not is_new else ():
        print_line(f"  was missing: {path}")
    for name, what in _FOLDERS.items():
        print_line(f"  {f'{name}/':<12} {_count(site / name) or what}")
    program = _program()
    print_line(f"\nexamples of specs: {ROOT / 'guests'}")
    print_line("next:")
    print_line(f"  cd {site}")
    print_line(f"  {program} create name=web1 suite=bookworm")
    print_line(f"to undo it: rm -r {site}; to keep it in git: git init {site}")


def _program() -> str:
    """What can be typed from any folder."""
    name = typed_name()
    return os.path.normpath(caller_folder() / name) if "/" in name else name


def _refuse(site: Path, *, is_new: bool) -> None:
    """Raises UsageError for a folder with other things in it, EnvironmentFault for another's."""
    if not os.path.lexists(site):
        return
    if not site.is_dir():
        raise UsageError(f"{site} is not a folder", hint="name a new folder: doit init FOLDER")
    if is_new and {path.name for path in site.iterdir()} - {".git"}:
        raise UsageError(
            f"{site} is no site, and not empty", hint="name a new folder: doit init /srv/site"
        )
    if site.stat().st_uid != os.geteuid():
        raise EnvironmentFault(f"{site} belongs to another user", hint="be that user")


def _make(site: Path) -> list[str]:
    """What is not there yet; returns what was made."""
    with gate("init", site):
        site.mkdir(parents=True, exist_ok=True)
        texts = {**_FILES, "README.md": _describe(site)}
        made = [name for name in (*_FOLDERS, *texts) if not (site / name).exists()]
        for name, text in texts.items():
            if name in made:
                (site / name).parent.mkdir(exist_ok=True)
                write_durably(site / name, text.encode())
        for name in _FOLDERS:
            (site / name).mkdir(exist_ok=True)
        make_private_folder(site / "secrets")
        link, schema = site / SCHEMA, ROOT / "docs" / SCHEMA
        if not link.exists() or (link.is_symlink() and link.resolve() != schema):
            link.unlink(missing_ok=True)  # of a checkout that has moved
            link.symlink_to(schema)
    return made


def _describe(site: Path) -> str:
    lines = [f"- `{name}/`: {what}" for name, what in _FOLDERS.items()]
    return "\n".join(
        [
            f"# {site.name}: guests for Xen",
            "",
            f"Made by the pipeline in {ROOT}; `git pull` there changes nothing here.",
            *lines,
            f"- `{SCHEMA}`: a link by which editors check what you type",
            "",
            "Stand in this folder, or set DOMU_SITE, and type its commands: `doit help`.",
            "",
        ]
    )


def _count(folder: Path) -> str:
    """What a folder has; nothing where it is empty."""
    if folder.name == "guests":
        return ", ".join(list_guests(folder))
    names = sorted(path.stem for path in folder.iterdir())
    return ", ".join(names) if folder.name in ("elements", "mirrors") else ""


def import_xen_tools(recipe: Recipe, _specs: object, asked: ImportXenTools) -> None:
    """`doit import-xen-tools`."""
    write_defaults(recipe.project, asked.file, replace=asked.replace, dry=asked.dry)


def write_defaults(project: Project, file: Path, *, replace: bool, dry: bool) -> None:
    """Write guests/defaults.toml of the site from xen-tools.conf, and say what it does not say."""
    path = project.guests / f"{DEFAULTS}.toml"
    if not dry:
        if project.site is None:
            raise UsageError(
                "there is no site: in this checkout the next pull would meet your defaults",
                hint="make one: doit init /srv/site, and cd there; dry=yes only shows them",
            )
        if not replace and path.exists() and tomllib.loads(read_named_text(path)):
            raise UsageError(f"{path} has values already", hint="replace=yes, or dry=yes")
    taken = translate_conf(read_conf(file), release=platform.release())
    text = render_defaults(taken, file, project.guests)
    if dry:
        print_line(text)
    else:
        with gate("import", path):
            write_durably(path, text.encode())
        print_line(f"wrote {path}: {len(taken.values)} keys")
    for name, reason in () if dry else taken.left:
        print_line(f"  not taken over: {name}: {reason}")
    for note in taken.notes:
        print_line(f"  {note}")


def describe_service(project: Project) -> dict[str, Any]:
    """How a unit of systemd starts this program for this site, as whoever asks."""
    moved = {"DOMU_OUTPUT": project.output, "DOMU_GUESTS": project.guests}
    environment = {key: str(path) for key, path in moved.items() if key in os.environ}
    if project.site:
        environment["DOMU_SITE"] = str(project.site)
    return {
        "program": project.root / "doit",
        "home": project.site or project.root,
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "environment": environment,
    }
