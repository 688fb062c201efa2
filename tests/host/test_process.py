"""run() with real programs, and files written into an ext4 that is not mounted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import ROOT, process
from pipeline.errors import CommandFailed, EnvironmentFault, PipelineError
from pipeline.namespace import isolated, tmpfs
from pipeline.storage.ext import IdentityFile, read_text, write_files

pytestmark = pytest.mark.integration
EPOCH = 1_700_000_000


def test_output_comes_back_and_goes_to_the_log_with_the_command(tmp_path: Path) -> None:
    log = tmp_path / "log"
    seen: list[str] = []
    said = process.run(["printf", "one\\ntwo\\n"], log=log, on_line=seen.append)
    assert said == "one\ntwo\n"
    assert seen == ["one\n", "two\n"]
    assert log.read_text().splitlines()[0] == "+ printf 'one\\ntwo\\n'"
    assert log.read_text().splitlines()[-1].startswith("= printf: ")


def test_a_failure_holds_argv_status_last_lines_log_and_a_known_cause(tmp_path: Path) -> None:
    script = "seq 1 30; echo 'cp: write error: No space left on device'; exit 7"
    with pytest.raises(CommandFailed) as caught:
        process.run(["sh", "-c", script], log=tmp_path / "log")
    error = caught.value
    assert error.status == 7
    assert error.argv == ["sh", "-c", script]
    assert len(error.details.splitlines()) == 20
    assert error.log == str(tmp_path / "log")
    assert "the disk is full" in error.brief
    assert "df -h" in error.hint


def test_a_missing_program_is_named() -> None:
    with pytest.raises(EnvironmentFault, match="no-such-program is not installed"):
        process.run(["no-such-program"])


def test_all_missing_tools_are_told_at_once() -> None:
    with pytest.raises(EnvironmentFault) as caught:
        process.require_tools({"sh": "dash", "no-such-a": "package-a", "no-such-b": "package-b"})
    assert "no-such-a, no-such-b" in caught.value.brief
    assert "package-a package-b" in caught.value.hint


def test_the_environment_is_ours_and_standard_input_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    monkeypatch.setenv("LC_ALL", "fr_FR.UTF-8")
    said = process.run(["sh", "-c", "env; cat"])
    assert "SECRET_OF_THE_CALLER" not in said
    assert "LC_ALL=C.UTF-8" in said


def test_what_is_mounted_in_a_namespace_is_not_seen_outside(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    inside = process.run(
        isolated(["findmnt", "-n", "-o", "FSTYPE", folder], mounts=[tmpfs(folder)])
    )
    assert inside.strip() == "tmpfs"
    assert not os.path.ismount(folder)


def test_a_failing_step_before_the_command_ends_it(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed):
        process.run(isolated(["touch", tmp_path / "reached"], before=[["false"]]))
    assert not (tmp_path / "reached").exists()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hosts").write_text("old\n")
    (tree / "etc/link").symlink_to("hosts")
    path = tmp_path / "image"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, path, "16M"], check=True)
    return path


def test_files_are_written_replaced_and_linked_and_the_file_system_stays_clean(
    image: Path, tmp_path: Path
) -> None:
    entries = [
        IdentityFile("/etc/hosts", b"new\n"),
        IdentityFile("/etc/link", link="elsewhere"),
        IdentityFile("/root/.ssh/authorized_keys", b"key\n", 0o600),
    ]
    work = tmp_path / "work"
    work.mkdir()
    write_files(process.run, image, entries, work=work, epoch=EPOCH)
    assert read_text(image, "/etc/hosts") == "new\n"
    shown = process.run(["debugfs", "-R", "stat /root/.ssh", image])
    assert "Mode:  0700" in shown
    shown = process.run(["debugfs", "-R", "stat /root/.ssh/authorized_keys", image])
    assert "Mode:  0600" in shown
    assert "User:     0   Group:     0" in shown
    assert "elsewhere" in process.run(["debugfs", "-R", "stat /etc/link", image])
    process.run(["e2fsck", "-f", "-n", image])


def test_a_file_that_does_not_fit_is_an_error_not_a_silent_loss(
    image: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    huge = IdentityFile("/etc/huge", bytes(64 << 20).replace(b"\0", b"x"))
    with pytest.raises(PipelineError):
        write_files(process.run, image, [huge], work=work, epoch=EPOCH)


def test_a_chroot_is_told_from_a_machine_that_forbids_user_namespaces(tmp_path: Path) -> None:
    """Linux makes none in a chroot, bound onto itself or not: the real kernel says so here."""
    for name in ("usr", "proc", "dev", "source"):
        (tmp_path / name).mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (tmp_path / name).symlink_to(f"usr/{name}")
    prepare = (
        'for name in usr dev; do mount --bind "/$name" "$1/$name"; done; '
        'mount -t proc proc "$1/proc"; mount --bind "$2" "$1/source"; '
        'shift 2; exec chroot "$@"'
    )
    ask = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from pipeline import process\nfrom pipeline.namespace import require_namespace\n"
        "require_namespace(process.run)"
    )
    packages = next(Path(path).resolve() for path in sys.path if path.endswith("site-packages"))
    with pytest.raises(CommandFailed) as caught:
        process.run(
            ["unshare", "--mount", "sh", "-euc", prepare, "sh", tmp_path, "/", tmp_path]
            + ["/usr/bin/python3", "-c", ask, f"/source{ROOT}", f"/source{packages}"]
        )
    assert "this is a chroot, in which Linux makes no user namespace" in caught.value.details
