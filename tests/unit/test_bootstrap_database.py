"""dpkg's database as `dpkg --unpack` would leave it, and the order of configuring."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bootstrap.database import Control, add_packages, begin_database, write_package
from pipeline.bootstrap.deb import Member
from pipeline.bootstrap.diversions import apply_diversions
from pipeline.bootstrap.resolution import Relations, read_relation
from pipeline.mirror.stanzas import read_fields

SCRIPT = Member("/x", "0", 0o755, 0, 0, 1_600_000_000, 0, 0, "")


def control(name: str, *, fields: str = "", **files: str) -> Control:
    stanza = f"Package: {name}\nVersion: 1\nArchitecture: amd64{fields}\nDescription: x"
    contents = {key: (SCRIPT, value.encode()) for key, value in files.items()}
    return Control(stanza, read_fields(stanza), (), (), contents)


def folder(path: str, kind: str = "5") -> Member:
    return replace(SCRIPT, path=path, kind=kind)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("info", "triggers"):
        (tmp_path / "var/lib/dpkg" / name).mkdir(parents=True)
    begin_database(tmp_path)
    return tmp_path


def add(tree: Path, *packages: tuple[Control, tuple[Member, ...]]) -> None:
    add_packages(tree, {one.name: (one, members) for one, members in packages})


def read(tree: Path, name: str) -> str:
    return (tree / "var/lib/dpkg" / name).read_text()


def test_a_stanza_is_unpacked_and_its_conffiles_are_new(tree: Path) -> None:
    made = replace(control("b"), conffiles=("/etc/b",), removed=("/etc/old",))
    add(tree, (made, ()), (control("a"), ()))
    first, second, rest = read(tree, "status").split("\n\n")
    assert first.endswith("Description: x\nStatus: install ok unpacked")
    assert second.endswith(
        "Status: install ok unpacked\nConffiles:\n"
        " /etc/old newconffile remove-on-upgrade\n /etc/b newconffile"
    )
    assert rest == ""


def test_packages_that_can_be_there_twice_have_their_architecture_in_every_name(tree: Path) -> None:
    made = control("libx", fields="\nMulti-Arch: same", postinst="#!/bin/sh\n", md5sums="")
    write_package(tree, made, [folder("/."), folder("/usr")], b"")
    names = sorted(path.name for path in (tree / "var/lib/dpkg/info").iterdir())
    assert names == ["format", *(f"libx:amd64.{end}" for end in ("list", "md5sums", "postinst"))]
    assert read(tree, "info/libx:amd64.list") == "/.\n/usr\n"
    assert (tree / "var/lib/dpkg/info/libx:amd64.postinst").stat().st_mode & 0o777 == 0o755


def test_a_package_without_md5sums_gets_them_without_its_conffiles(tree: Path) -> None:
    files = [replace(SCRIPT, path=path, size=3) for path in ("/etc/a", "/usr/b")]
    write_package(tree, replace(control("a"), conffiles=("/etc/a",)), files, b"abc")
    assert read(tree, "info/a.md5sums") == "900150983cd24fb0d6963f7d28e17f72  usr/b\n"


def test_interests_are_kept_by_path_and_by_name(tree: Path) -> None:
    triggers = "# words\ninterest-noawait /usr/share/x\ninterest ldconfig # why\n"
    add(tree, (control("a", fields="\nMulti-Arch: same", triggers=triggers), ()))
    assert read(tree, "triggers/File") == "/usr/share/x a:amd64/noawait\n"
    assert read(tree, "triggers/ldconfig") == "a:amd64\n"
    assert read(tree, "triggers/Unincorp") == ""


def test_packages_that_come_later_set_off_what_earlier_ones_wait_for(tree: Path) -> None:
    add(tree, (control("a", triggers="interest /usr/share/x\ninterest /usr/none\n"), ()))
    later = control("b", triggers="activate-noawait ldconfig\n")
    add(tree, (later, (folder("/usr/share/x/y", "0"), folder("/usr/share/xyz", "0"))))
    assert read(tree, "triggers/Unincorp") == "/usr/share/x -\nldconfig -\n"


@pytest.mark.parametrize(
    ("script", "works"),
    [
        (
            '#!/bin/sh\nset -e\n\n# added\ndpkg-maintscript-helper rm_conffile /etc/x 1~ -- "$@"',
            False,
        ),
        ('#!/bin/sh\nset -e\ndpkg-maintscript-helper rm_conffile /x 1~ -- "$@"; touch /y', True),
        ('dpkg-maintscript-helper rm_conffile $(touch /y) 1~ -- "$@"', True),
        ('dpkg-maintscript-helper rm_conffile /x 1~ x -- "$@" || true', True),
        ("#!/bin/sh\nexit 0", False),
        ("#!/bin/sh\nuseradd x", True),
    ],
)
def test_only_a_preinst_that_does_nothing_at_first_is_left_out(script: str, works: bool) -> None:
    assert control("a", preinst=script).has_working_preinst is works
    assert not control("a").has_working_preinst


def divert(tree: Path, *lines: str) -> None:
    (tree / "var/lib/dpkg/diversions").write_text("".join(f"{line}\n" for line in lines))


def test_a_diverted_folder_of_another_package_gets_its_other_name(tree: Path) -> None:
    divert(tree, "/lib", "/lib.usr-is-merged", "base-files", "/gone", "/gone.x", "base-files")
    mine = folder("/lib")
    packages = {"base-files": (None, (mine,)), "iproute2": (None, ())}
    apply_diversions(tree, packages)
    assert not (tree / "lib.usr-is-merged").exists()
    own = replace(mine, uid=tree.stat().st_uid, gid=tree.stat().st_gid, mode=0o755)
    apply_diversions(tree, {**packages, "libcryptsetup12": (None, (own,))})
    assert (tree / "lib.usr-is-merged").is_dir()


def relations(**depends: str) -> Relations:
    return Relations(
        {
            name.replace("_", "-"): read_fields(text or "Priority: optional")
            for name, text in depends.items()
        }
    )


def test_essential_is_what_is_marked_and_what_that_needs() -> None:
    found = relations(
        bash="Essential: yes\nPre-Depends: libc (>= 2), none | debconf-2.0\nDepends: no | libx",
        libc="Depends: libgcc:any (= 1) [amd64]",
        libgcc="",
        debconf="Provides: debconf-2.0 (= 1), other",
        libx="",
        systemd="Depends: libc",
    )
    assert found.essential == {"bash", "libc", "libgcc", "debconf", "libx"}


def test_what_others_pre_depend_on_is_configured_before_them() -> None:
    found = relations(
        bash="Essential: yes",
        systemd_sysv="Pre-Depends: systemd",
        systemd="Pre-Depends: libssl\nDepends: libmount, bash",
        libssl="",
        libmount="",
        sshd="Depends: systemd, libssl",
    ).waves()
    assert found == [{"bash"}, {"libssl"}, {"systemd", "libmount"}, {"systemd-sysv", "sshd"}]


def test_a_circle_of_pre_dependencies_ends() -> None:
    found = relations(bash="Essential: yes", a="Pre-Depends: b", b="Pre-Depends: a").waves()
    assert found == [{"bash"}, {"a", "b"}]


def test_relations_are_read_as_alternatives_of_names() -> None:
    assert read_relation("a (>= 1), b:any|c [amd64],, d\n e") == [["a"], ["b", "c"], ["d"]]
