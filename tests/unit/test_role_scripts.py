"""xen-tools' role scripts in a spec: found, refused, and what of them counts."""

from pathlib import Path

import pytest

from pipeline import ROOT
from pipeline.errors import PipelineError, SpecError
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec, parse_overrides, translate_options
from pipeline.spec.load import load_guest
from pipeline.spec.role_scripts import find_missed, settings_of
from pipeline.stages import STAGES
from pipeline.stages.rootfs import elements_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of roles: `web`, and one with the name of a role of xen-tools'."""
    roles = tmp_path / "role.d"
    roles.mkdir()
    for name in ("web", "udev"):
        (roles / name).write_text("#!/bin/sh\necho $dist >$1/etc/web\n")
        (roles / name).chmod(0o755)
    (tmp_path / "guests").mkdir()
    return roles


def load(folder: Path, text: str) -> Spec:
    guests = folder.parent / "guests"
    (guests / "web1.toml").write_text(text)
    return load_guest("web1", guests_dir=guests)


def test_a_spec_names_scripts_of_its_folders(folder: Path) -> None:
    spec = load(folder, 'role = "web"\nroles_path = "../role.d"\nrole_args = "--site \'a b\'"\n')
    assert spec.role == ("web",)
    assert Path(spec.roles_path[0]).resolve() == folder
    assert "xen-tools-roles" in elements_of(spec)
    assert "xen-tools-roles" not in elements_of(load(folder, ""))
    given = settings_of(spec)
    assert (given["dist"], given["arch"], given["role"]) == ("bookworm", "amd64", "web")
    assert (given["roledir"], given["disk_device"]) == (spec.roles_path[0], "xvda")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('role = "nosuch"', "nosuch: no script"),
        ('role = "../web"', "is no role"),
        ('role = ["web", "plain"]', "plain is not executable"),
        ('role = "web"\nrole_args = "it\'s"', "quote it as for a shell"),
        ('roles_path = "/nowhere"', "no such folder"),
        ('role = "own"', "own reads $hostname, $ip, and a golden image is no one guest's"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_does(
    folder: Path, text: str, said: str
) -> None:
    (folder / "plain").write_text("")
    (folder / "own").write_text('#!/bin/sh\n# $mac\necho "${hostname}" $ip >$1/etc/own\n')
    (folder / "own").chmod(0o755)
    with pytest.raises(PipelineError) as refused:
        load(folder, text if "roles_path" in text else f'{text}\nroles_path = "../role.d"\n')
    assert said in f"{refused.value} {refused.value.details} {refused.value.findings}"


@pytest.mark.parametrize(
    ("text", "missed"),
    [
        ("echo $dist $arch $1", []),
        ("echo ${hostname}", ["hostname"]),
        ("hostname=web; echo $hostname", []),
        ("for ip in 1 2; do echo $ip; done", []),
        ("read mac; echo $mac", []),
        ("use Env; print $ENV{'gateway'}", ["gateway"]),
        ("my $size = shift; print $size", []),
        ("  # $hostname", []),
        ("echo $hostnames $ipv4", []),
    ],
)
def test_what_a_script_asks_of_one_guest(text: str, missed: list[str]) -> None:
    assert find_missed(text) == missed


def test_what_a_script_holds_and_is_given_counts_and_only_where_there_is_one(folder: Path) -> None:
    root = folder.parent
    named = 'roles_path = "../role.d"\nrole = "web"\n'

    def look(text: str) -> tuple[object, str]:
        recipe = Recipe(Project(ROOT, root / "output", root / "guests"), STAGES)
        spec = load(folder, text)
        return recipe.inputs_of(recipe.stages["rootfs"], spec), recipe.group_of("rootfs", spec)

    plain, one = look(""), look(named)
    assert not {"role", "roles", "role settings"} & set(dict(plain[0]))  # type: ignore[call-overload]
    assert one[1] != plain[1], "guests with and without share no task"
    assert look(f'{named}role_args = "x"\n') != one
    (folder / "web").write_text("#!/bin/sh\n")
    two = look(named)
    assert two[0] != one[0]
    assert two[1] == one[1]
    (root / "sed.d").mkdir()
    (root / "sed.d/x.sed").write_text("s/a/b/\n")
    assert look(named)[0] != two[0]
    assert look("") == plain


def test_a_role_of_xen_tools_own_is_packages_unless_its_folder_is_named(folder: Path) -> None:
    done = translate_options({"role": "udev,sudoers"})
    assert (done.problems, done.overrides) == ([], {"packages": "sudo"})
    done = translate_options({"--role": "udev,sudoers,web", "--roledir": str(folder)})
    assert done.problems == []
    wanted = {"packages": "sudo", "role": "udev,web", "roles_path": str(folder)}
    assert done.overrides == wanted
    assert "`udev`: its script runs, in a cage; `sudoers`: the package" in done.notes[0]
    assert parse_overrides({"role": "web", "roles_path": str(folder)}) == {
        "role": ["web"],
        "roles_path": [str(folder)],
    }
    done = translate_options({"role": "web", "finalrole": "udev", "roledir": str(folder)})
    assert done.overrides["role"] == "web,udev"
    assert any(note.startswith("finalrole: runs behind") for note in done.notes)
    with pytest.raises(SpecError, match="is no script in /etc/xen-tools/role.d"):
        parse_overrides({"role": "nosuch"})
