"""What a person may name by mistake where a text, a folder of elements or a file is expected."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import EnvironmentFault, PipelineError, SpecError, UsageError
from pipeline.files import digest_tree
from pipeline.project import Project
from pipeline.spec import Spec, load_all, load_guest
from pipeline.stages import mirror, rootfs, volume
from tests.specs import make_spec

pytestmark = pytest.mark.timeout(30)

Make = Callable[[Path], object]


def make_socket(path: Path) -> None:
    # a socket's path is short
    home = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{home}/{path.name}")
    finally:
        os.close(home)


def make_deep(path: Path, depth: int = 1200) -> None:
    """Folders in folders, longer than any path may be."""
    path.mkdir()
    here = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def remove_deep(path: Path) -> None:
    """Unlike shutil.rmtree, at any depth."""
    while (path / "d").exists():
        (path / "d").rename(path.with_name("next"))
        path.rmdir()
        path.with_name("next").rename(path)


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


KINDS: dict[str, tuple[Make, str]] = {
    "fifo": (os.mkfifo, "this is a FIFO, not a file"),
    "socket": (make_socket, "this is a socket, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "this is a device, not a file"),
    "folder": (lambda path: path.mkdir(), "this is a folder, not a file"),
    "loop": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "gone": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    "huge": (make_sparse, "longer than 1024 KiB"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe"), "not a UTF-8 text"),
}
TEXTS = {
    "nested": (f"hosts = {'[' * 5000}{']' * 5000}", "nested too deeply"),
    "dotted": (f"{'.'.join('a' * 3000)} = 1", "nested too deeply"),
    "digits": (f"vcpus = {'9' * 5000}", "not TOML: Exceeds the limit"),
    "hexadecimal": (f"vcpus = 0x{'f' * 5000}", "a number of more than 64 bits"),
    "bits": (f"mtu = {2**64}", "a number of more than 64 bits"),
    "part": ('partitions = ["x"]', "'x' is not a table"),
    "parts": ("partitions = [[1]]", "[1] is not a table"),
    "long": (f'partitions = "{"p" * 300}"', "no file "),
    "home": ('partitions = "~nosuch/x"', "no file "),
    "long path": (f'keyring = "/{"k" * 300}"', "is longer than any file's name"),
    "long kernel": (f'kernel = "/{"k" * 300}"', "is longer than any file's name"),
    "long key": (f'authorized_keys = ["/{"k" * 300}"]', "File name too long"),
}


def only_problem(guests: Path, name: str = "tiny") -> str:
    with pytest.raises(SpecError) as caught:
        load_guest(name, guests_dir=guests)
    first = caught.value.problems[0]
    assert len(str(first)) < 1500
    return first.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_that_is_no_text_is_one_line_and_never_waited_for(guests: Path, kind: str) -> None:
    make, message = KINDS[kind]
    make(guests / "tiny.toml")
    assert message in only_problem(guests)
    assert set(load_all(guests).problems) == {"tiny"}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_that_no_spec_can_be_is_one_line(guests: Path, kind: str) -> None:
    text, message = TEXTS[kind]
    (guests / "tiny.toml").write_text(f"{text}\n")
    assert message in only_problem(guests)


@pytest.mark.parametrize("kind", ["fifo", "device", "huge", "loop"])
@pytest.mark.parametrize("key", ["authorized_keys", "partitions"])
def test_a_file_that_a_spec_names_is_no_trap_either(guests: Path, key: str, kind: str) -> None:
    KINDS[kind][0](guests / "named")
    (guests / "tiny.toml").write_text(f'{key} = "./named"\n')
    only_problem(guests)


def element(tmp_path: Path) -> tuple[Spec, Project, Path]:
    folder = tmp_path / "elements" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / "own").mkdir()
    spec = make_spec(name="tiny", elements=["mine"], elements_path=[str(folder.parent)])
    root = Path(__file__).resolve().parents[2]
    return spec, Project(root, tmp_path / "output", tmp_path / "guests"), folder


ELEMENTS: dict[str, tuple[Make, str]] = {
    **{kind: KINDS[kind] for kind in ("fifo", "socket")},
    "loop": KINDS["loop"],
    "sparse": (make_sparse, "more than 4 GiB"),
    "control": (lambda path: path.with_name("a\x1b[2Jb").touch(), "a name that cannot be printed"),
    "latin": (lambda path: os.mkfifo(os.fsencode(path) + b"\xff"), "a name that cannot be printed"),
}


@pytest.mark.parametrize("kind", ELEMENTS)
@pytest.mark.parametrize("place", ["install.d", "."])
def test_an_element_with_what_is_no_file_is_refused_unopened(
    tmp_path: Path, kind: str, place: str
) -> None:
    spec, project, folder = element(tmp_path)
    (folder / place).mkdir(exist_ok=True)
    make, message = ELEMENTS[kind]
    make(folder / place / "50-mine")
    with pytest.raises(UsageError) as caught:
        rootfs.inputs(spec, project)
    assert message in caught.value.brief
    assert str(folder) in caught.value.brief
    assert caught.value.brief.isprintable()


def test_an_element_of_1200_folders_in_one_another_is_refused(tmp_path: Path) -> None:
    spec, project, folder = element(tmp_path)
    make_deep(folder / "deep")
    try:
        with pytest.raises(UsageError, match="more than 32 deep") as caught:
            rootfs.inputs(spec, project)
        assert len(caught.value.brief) < 300
    finally:
        remove_deep(folder / "deep")


def test_an_element_of_more_files_than_a_person_writes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, project, folder = element(tmp_path)
    monkeypatch.setattr(files, "TREE_FILES", 100)
    for number in range(101):
        (folder / str(number)).touch()
    with pytest.raises(UsageError, match="or 100 files"):
        rootfs.inputs(spec, project)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"../../etc\n", "is not an element's name"),
        (b"domu\xff\n", "not a UTF-8 text"),
        (b"x" * (2 << 20), "longer than 1024 KiB"),
        (b"\x1b[2Jx\n", "is not an element's name"),
        (b"nosuch\n", "element 'nosuch': not found"),
    ],
)
def test_element_deps_names_elements_and_nothing_else(
    tmp_path: Path, content: bytes, message: str
) -> None:
    spec, project, folder = element(tmp_path)
    (folder / "element-deps").write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        rootfs.inputs(spec, project)
    assert message in caught.value.brief
    assert caught.value.brief.isprintable()


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("50-mine", 0o644, "not executable, so diskimage-builder would skip it"),
        ("50-mine.sh", 0o755, "would skip a script of this name"),
    ],
)
def test_a_script_that_would_be_skipped_without_a_word_is_refused(
    tmp_path: Path, name: str, mode: int, message: str
) -> None:
    spec, project, folder = element(tmp_path)
    hook = folder / "post-install.d" / name
    hook.parent.mkdir()
    hook.write_text("#!/bin/bash\n")
    hook.chmod(mode)
    with pytest.raises(UsageError, match=message) as caught:
        rootfs.inputs(spec, project)
    assert str(hook) in caught.value.brief
    hook.rename(hook.with_name("50-mine")).chmod(0o755)
    (hook.parent / "README").write_text("what this is\n")
    assert "post-install.d/50-mine" in rootfs.inputs(spec, project)["elements"]["mine"]


def test_ours_is_taken_where_a_folder_of_the_users_has_the_same_name(tmp_path: Path) -> None:
    """docs/reference/spec.md says so."""
    spec, project, folder = element(tmp_path)
    other = folder.parent / "domu"
    other.mkdir()
    (other / "mark").touch()
    used = rootfs.inputs(spec, project)["elements"]
    assert "mark" not in used["domu"]
    assert "mine" in used


def test_links_in_an_element_count_by_their_target(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/nowhere")
    (tmp_path / "b").write_text("text\n")
    assert digest_tree(tmp_path)["a"] == "link /nowhere"
    assert set(digest_tree(tmp_path)) == {"a", "b"}


@pytest.mark.parametrize("sign", [*"\t\n'\"\x1b\u202e", "\udcff"])
def test_a_folder_whose_name_no_line_can_hold_is_refused_before_anything(
    tmp_path: Path, sign: str
) -> None:
    """docs/reference/exit-codes.md: 3. In a spec it is a problem of its key."""
    root = Path(__file__).resolve().parents[2]
    for project in (
        Project(root, tmp_path / f"a{sign}b" / "output", tmp_path),
        Project(tmp_path / f"a{sign}b", tmp_path / "output", tmp_path),
    ):
        with pytest.raises(EnvironmentFault) as caught:
            project.require_usable_paths()
        assert caught.value.exit_code == 3
        assert "in a path: no configuration can name it" in caught.value.brief


def test_a_link_to_such_a_folder_is_no_way_around(tmp_path: Path) -> None:
    (tmp_path / "a'b").mkdir()
    (tmp_path / "link").symlink_to("a'b")
    with pytest.raises(EnvironmentFault, match="a quote"):
        Project(tmp_path, tmp_path / "link", tmp_path).require_usable_paths()


def test_letters_of_any_language_and_most_signs_are_usable(tmp_path: Path) -> None:
    for name in (
        "\xfc\xe9\u65e5",
        "a@b%c+d=e~f#g!h^i.j_k-l",
        "a b`c$d*e?f,g:h;i&j|k<l>m(n)[o]{p}\\",
    ):
        Project(tmp_path / name, tmp_path / name / "output", tmp_path).require_usable_paths()


@pytest.mark.parametrize("stage", ["mirror", "volume"])
def test_a_link_that_a_person_names_counts_by_what_it_leads_to(tmp_path: Path, stage: str) -> None:
    """A mounted secret is a link, and so is every keyring of Debian 13."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("a keyring, or a password\n")
    link.symlink_to(file)
    project = Project(Path(__file__).resolve().parents[2], tmp_path / "output", tmp_path)
    found = []
    for path in (file, link):
        spec = make_spec(keyring=str(path), root_password_file=str(path))
        inputs = {"mirror": mirror.inputs, "volume": volume.inputs}[stage](spec, project)
        found.append({name: text for name, text in inputs.items() if str(path) not in str(text)})
    assert found[0] == found[1]
    assert found[0]["keyring bytes" if stage == "mirror" else "root password"]
