"""The parallel bootstrap's tree is mmdebstrap's, byte for byte but for what is listed here."""

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pipeline import process
from pipeline.bootstrap import bootstrap, resolution
from pipeline.bootstrap.deb import Member
from pipeline.bootstrap.order import Deb
from pipeline.errors import VerificationError
from pipeline.files import digest_file
from pipeline.mirror.apt_lists import write_lists
from pipeline.mirror.snapshot import Snapshot, read_snapshot
from pipeline.namespace import isolated, tmpfs
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.stages import base, mirror
from tests.conftest import ROOT, require
from tests.host.cage_attempts import OTHER_SYSCTL

pytestmark = pytest.mark.integration

# the build host's own traces in mmdebstrap's tree
ONLY_MMDEBSTRAP = set(
    "etc/hostname etc/resolv.conf etc/.resolv.conf.systemd-resolved.bak "
    "etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap".split()
)
# mmdebstrap's names the host's copy of the keyring
OTHER_CONTENT = {"etc/apt/sources.list"}
# databases whose entries have no order
ANY_ORDER = re.compile(r"var/lib/apt/extended_states|var/lib/dpkg/(status|triggers/.*)")
# mmdebstrap gives them the number that _apt has on the host
OTHER_OWNER = {"var/lib/apt/lists/partial", "var/cache/apt/archives/partial"}
VARIANTS = [
    pytest.param(("bookworm", "systemd"), id="bookworm"),
    *(
        pytest.param((suite, init), id=f"{suite}-{init}", marks=pytest.mark.matrix)
        for suite, init in (
            ("bookworm", "sysvinit"),
            ("trixie", "systemd"),
            ("trixie", "sysvinit"),
            ("noble", "systemd"),
            ("resolute", "systemd"),
            ("bullseye", "systemd"),
            ("bullseye", "sysvinit"),
        )
    ),
]


@dataclass(frozen=True)
class Entry:
    """One entry of a base.tar, with all that must agree; its time is apart."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    target: str
    attributes: tuple[tuple[str, str], ...]
    content: bytes


@dataclass(frozen=True)
class Bench:
    """A project with a verified snapshot and the base that mmdebstrap made of it."""

    project: Project
    spec: Spec
    snapshot: Snapshot
    reference: Path

    def make(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        cache: Path | None = None,
    ) -> Path:
        """The parallel bootstrap's base.tar in a folder."""
        folder.mkdir()

        def run(argv: list[str], **options: Any) -> str:
            env = {**environment, **options.pop("env", {})}
            return process.run(argv, log=folder / "log", env=env, **options)

        bootstrap.make_base(
            self.spec,
            self.snapshot,
            scratch=folder,
            tar=folder / "base.tar",
            cache=cache or self.project.output / "cache/debs",
            run=run,
            unwanted=base.filter_of(self.spec),
        )
        assert sorted(path.name for path in folder.iterdir()) == ["base.tar", "log"]
        return folder / "base.tar"


@pytest.fixture(scope="module", params=VARIANTS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    require(shutil.which("mmdebstrap") is not None, "needs mmdebstrap")
    suite, init = request.param
    root = tmp_path_factory.mktemp(f"{suite}-{init}")
    project = Project(ROOT, root / "output", root / "guests")
    spec = Spec.model_validate({"name": "web1", "suite": suite, "init": init})
    recipe = Recipe(project, [mirror.STAGE, base.STAGE])
    snapshot = read_snapshot(recipe.build("mirror", spec).folder)
    reference = recipe.build("base", spec).folder / "base.tar"
    parallel = spec.model_copy(update={"bootstrap": "parallel"})
    return Bench(project, parallel, snapshot, reference)


@pytest.fixture(scope="module")
def made(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.make(tmp_path_factory.mktemp("made") / "first")


def make_deb(folder: Path, name: str, scripts: Mapping[str, str]) -> Path:
    """A package without files, with these maintainer scripts."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(control)
    for script, text in scripts.items():
        (tree / "DEBIAN" / script).write_text(text)
        (tree / "DEBIAN" / script).chmod(0o755)
    process.run(["dpkg-deb", "--build", "--root-owner-group", tree, folder / f"{name}.deb"])
    return folder / f"{name}.deb"


def entry_at(path: str) -> Member:
    return Member(path, "0", 0o644, 0, 0, 0, 0, 0, "")


def entries_of(tar: Path) -> dict[str, Entry]:
    """The entries below their paths, without /dev: a guest mounts its own."""
    found: dict[str, Entry] = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            reader = archive.extractfile(member) if member.isreg() else None
            found[name] = Entry(
                kind=member.type,
                mode=member.mode,
                owner=(member.uid, member.gid),
                target=member.linkname,
                attributes=tuple(sorted(i for i in member.pax_headers.items() if "xattr" in i[0])),
                content=reader.read() if reader else b"",
            )
    return {name: entry for name, entry in found.items() if not name.startswith("dev/")}


def in_any_order(content: bytes) -> list[bytes]:
    gap = b"\n\n" if b"\n\n" in content else b"\n"
    return sorted(content.strip(b"\n").split(gap))


def differences(name: str, theirs: Entry, ours: Entry) -> Iterator[str]:
    for what in ("kind", "mode", "target", "attributes", "owner"):
        wanted, got = getattr(theirs, what), getattr(ours, what)
        if wanted != got and not (what == "owner" and name in OTHER_OWNER):
            yield f"{name}: {what} {wanted!r} is {got!r} here"
    if ANY_ORDER.fullmatch(name):
        is_same = in_any_order(theirs.content) == in_any_order(ours.content)
    else:
        is_same = theirs.content == ours.content
    if not is_same and name not in OTHER_CONTENT:
        yield f"{name}: other content ({len(theirs.content)} bytes, {len(ours.content)} here)"


def test_the_tree_is_the_one_that_mmdebstrap_makes(bench: Bench, made: Path) -> None:
    theirs, ours = entries_of(bench.reference), entries_of(made)
    assert set(theirs) - set(ours) <= ONLY_MMDEBSTRAP
    assert set(ours) - set(theirs) == set()
    found = [line for name in ours for line in differences(name, theirs[name], ours[name])]
    assert not found, "\n".join(found)


def test_the_same_snapshot_gives_the_same_bytes(bench: Bench, made: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = bench.make(
            tmp_path / "again", environment={"TZ": "Pacific/Auckland", "LC_ALL": "C"}
        )
    finally:
        os.umask(before)
    digests = {hashlib.sha256(tar.read_bytes()).hexdigest() for tar in (made, again)}
    assert len(digests) == 1


def test_the_snapshot_is_not_touched_by_those_who_take_its_lists(
    bench: Bench, tmp_path: Path
) -> None:
    """A tar of another guest's build would end with: file changed as we read it."""
    before = {path: path.stat().st_ctime_ns for path in bench.snapshot.folder.iterdir()}
    write_lists(bench.snapshot, bench.spec.arch, tmp_path / "lists")
    shutil.rmtree(tmp_path / "lists")
    assert {path: path.stat().st_ctime_ns for path in before} == before


def test_dpkg_and_apt_of_the_tree_are_content(bench: Bench, made: Path, tmp_path: Path) -> None:
    lists, tree, config = tmp_path / "lists", tmp_path / "tree", tmp_path / "apt.conf"
    tree.mkdir()
    write_lists(bench.snapshot, bench.spec.arch, lists)
    config.write_text(
        f'Dir "{tree}";\nDir::State::Status "{tree}/var/lib/dpkg/status";\n'
        'APT::Architectures "amd64";\n'
    )
    script = f"""
        tar -C {tree} -xf {made}
        cp -r {lists}/. {tree}/var/lib/apt/lists/
        mount --rbind /dev {tree}/dev
        mount -t proc proc {tree}/proc
        # Ubuntu's apt is not "required": there the host's looks into the tree
        [ -e {tree}/usr/bin/apt-get ] && apt='chroot {tree}' || apt='env APT_CONFIG={config}'
        for words in 'dpkg --audit' 'dpkg --verify' 'apt-get check' 'apt-get -s install nano' \\
            'apt-get -s autoremove' 'apt-mark showauto'
        do
            echo "== $words"
            case $words in dpkg*) chroot {tree} $words ;; *) $apt $words ;; esac 2>&1
        done"""
    output = process.run(isolated(["sh", "-euc", script], mounts=[tmpfs(tree)]))
    said = dict(part.split("\n", 1) for part in output.split("== ")[1:])
    assert said["dpkg --audit"] == ""
    missing = [line.removeprefix("missing ").strip() for line in said["dpkg --verify"].splitlines()]
    unwanted = base.filter_of(bench.spec)
    assert [path for path in missing if not unwanted.skips(entry_at(path))] == []
    assert "Inst nano " in said["apt-get -s install nano"]
    assert "Remv" not in said["apt-get -s autoremove"]
    shown = set(said["apt-mark showauto"].split())
    asked_for = bench.spec.suite_facts.base_packages(bench.spec.init)
    assert len(shown) > 20
    assert not shown & {*asked_for, "bash", "apt"}


def test_apt_answers_from_the_selected_lists_as_from_all(bench: Bench, tmp_path: Path) -> None:
    packages = bench.spec.suite_facts.base_packages(bench.spec.init)
    said: list[str] = []

    def run(argv: list[str], env: dict[str, str], cwd: Path) -> str:
        said.append(process.run(argv, env=env, cwd=cwd))
        if len(said) == 1:
            shutil.rmtree(tmp_path / "lists")
            write_lists(bench.snapshot, "amd64", tmp_path / "lists")
            said.append(process.run(argv, env=env, cwd=cwd))
        return said[0]

    resolution.resolve(
        packages, bench.snapshot, suite=bench.spec.suite, arch="amd64", folder=tmp_path, run=run
    )
    few, many = (set(re.findall(r"SHA256:(\w+)", text)) for text in said)
    assert few == many and len(few) > 50


def test_a_package_that_is_not_what_was_signed_is_refused(
    bench: Bench, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "debs"
    shutil.copytree(bench.project.output / "cache/debs", broken)
    first = min(broken.iterdir())
    first.write_bytes(b"x" + first.read_bytes()[1:])
    ask = resolution.resolve

    def resolve(*arguments: Any, **options: Any) -> resolution.Resolution:
        found = ask(*arguments, **options)
        waves = (
            (replace(deb, url=f"file:{broken}/{deb.sha256}") for deb in wave)
            for wave in found.waves
        )
        return replace(found, waves=tuple(map(tuple, waves)))

    monkeypatch.setattr("pipeline.bootstrap.bootstrap.resolve", resolve)
    with pytest.raises(VerificationError, match=f"{first.name}: wrong bytes"):
        bench.make(tmp_path / "made", cache=tmp_path / "cache")
    assert not list((tmp_path / "made").glob("*.tar"))


def test_a_packages_scripts_do_not_reach_the_machine(
    bench: Bench, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """e44a75a: a preinst wrote through /proc/1/root and changed the machine's name."""
    witness, cache = tmp_path / "witness", tmp_path / "cache"
    witness.write_text("the host's\n")
    shutil.copytree(bench.project.output / "cache/debs", cache)
    attempts = f"""#!/bin/sh
        echo owned >/proc/1/root{witness}; echo owned >{witness}; echo owned >/owned
        hostname owned; {OTHER_SYSCTL}; mknod /tmp/disk b 254 0
        echo "note: owned"; echo 'failed: {{"exit_code": 0, "brief": "owned"}}'
        sleep 600 & setsid sleep 600 >/dev/null 2>&1 &
        exit 0
        """
    deb = make_deb(tmp_path, "evil", {"preinst": attempts, "postinst": attempts})
    evil = Deb("evil", "http://nowhere.invalid/evil.deb", deb.stat().st_size, digest_file(deb))
    shutil.copyfile(deb, cache / evil.sha256)
    ask = resolution.resolve

    def resolve(*arguments: Any, **options: Any) -> resolution.Resolution:
        found = ask(*arguments, **options)
        return replace(found, waves=(*found.waves[:-1], (*found.waves[-1], evil)))

    monkeypatch.setattr("pipeline.bootstrap.bootstrap.resolve", resolve)
    machine = (os.uname().nodename, Path("/proc/sys/vm/swappiness").read_text())
    tar = bench.make(tmp_path / "made", cache=cache)
    assert witness.read_text() == "the host's\n"
    assert (os.uname().nodename, Path("/proc/sys/vm/swappiness").read_text()) == machine
    theirs, ours = entries_of(made), entries_of(tar)
    assert ours["owned"].content == b"owned\n", "it ran, and in its tree it may do so"
    assert not [name for name in ours if name.startswith("tmp/")] and len(ours) > len(theirs)
