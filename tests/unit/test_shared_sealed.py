"""A guest's own files in a shared store: for one key, as a whole, and gone once fetched."""

import os
from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.shared.entry import MARKER
from pipeline.shared.sealed import seal, sealed_bytes, unseal
from tests.shared_bench import Machine, files_there, make_fleet, same_bytes

KEY = bytes(range(32))
MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_what_is_sealed_comes_out_for_its_key_and_name_alone(tmp_path: Path, size: int) -> None:
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    plain.write_bytes(os.urandom(size))
    seal(plain, sealed, KEY, "web1/0")
    assert sealed.stat().st_size == sealed_bytes(size)
    assert sealed.stat().st_mode & 0o777 == 0o600
    unseal(sealed, tmp_path / "out", KEY, "web1/0")
    assert (tmp_path / "out").read_bytes() == plain.read_bytes()
    for number, (key, name) in enumerate([(KEY[::-1], "web1/0"), (KEY, "web1/1")]):
        with pytest.raises(VerificationError, match="not what was sealed"):
            unseal(sealed, tmp_path / f"no{number}", key, name)


def test_no_byte_and_no_piece_may_be_another(tmp_path: Path) -> None:
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    plain.write_bytes(os.urandom(3 * MIB))
    seal(plain, sealed, KEY, "x")
    content = sealed.read_bytes()
    head, piece = sealed_bytes(0) - 16, MIB + 16
    pieces = [content[head + at * piece : head + (at + 1) * piece] for at in range(3)]
    harmed = [
        content[:-1],
        content[:-piece],  # the last piece left out
        content + b"\0",
        content[:head] + pieces[1] + pieces[0] + pieces[2],
        content[: head + 5] + bytes([content[head + 5] ^ 1]) + content[head + 6 :],
        content[:20] + bytes([content[20] ^ 1]) + content[21:],  # the salt
        b"",
        content[: head - 1],
    ]
    for number, other in enumerate(harmed):
        sealed.write_bytes(other)
        with pytest.raises(VerificationError):
            unseal(sealed, tmp_path / f"out{number}", KEY, "x")


def test_the_same_file_is_never_sealed_alike(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"a secret")
    for name in ("one", "two"):
        seal(tmp_path / "plain", tmp_path / name, KEY, "x")
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


def test_a_guests_folder_goes_from_one_machine_to_another_and_is_gone(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", "build1", "build2")
    url = f"file://{tmp_path}/shared"
    worker = Machine.at(tmp_path / "one", url, fleet, "build1").store()
    folder, target = tmp_path / "web1", tmp_path / "here"
    folder.mkdir()
    target.mkdir()
    (folder / "known_hosts").write_text("web1 ssh-ed25519 SECRETWORD\n" * 99)
    (folder / "buildinfo.json").write_text("")
    with open(folder / "disk.img", "wb") as disk:
        disk.truncate(32 << 20)
        disk.seek(MIB)
        disk.write(b"SECRETWORD" * 1000)
    (folder / "disk.img").chmod(0o600)
    worker.push_sealed("web1-1f2e", folder, KEY)
    there = [path for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    assert len(there) == 5 and not [path for path in there if b"SECRET" in path.read_bytes()]
    assert sum(path.stat().st_size for path in there) < 50_000, "packed, and without holes"
    submitter = Machine.at(tmp_path / "two", url, fleet, "build2").store()
    with pytest.raises(VerificationError):
        submitter.pull_sealed("web1-1f2e", target, KEY[::-1])
    submitter.pull_sealed("web1-1f2e", target, KEY)
    assert same_bytes(folder, target / "web1")
    assert len(files_there(url)) == 5, "another worker may have to fetch it"
    worker.remove_sealed("web1-1f2e")
    worker.remove_sealed("web1-1f2e")
    assert files_there(url) == [MARKER]
    with pytest.raises(FileNotFoundError):
        submitter.pull_sealed("web1-1f2e", target, KEY)


def test_of_two_workers_that_sealed_the_same_the_last_counts_as_a_whole(tmp_path: Path) -> None:
    fleet, url = make_fleet(tmp_path / "fleet", "build1"), f"file://{tmp_path}/shared"
    worker = Machine.at(tmp_path / "one", url, fleet).store()
    for word in ("first", "second"):
        folder = tmp_path / word
        folder.mkdir()
        for name in ("a", "b"):
            (folder / name).write_text(word)
        worker.push_sealed("web1", folder, KEY)
    target = tmp_path / "here"
    target.mkdir()
    worker.pull_sealed("web1", target, KEY)
    assert same_bytes(tmp_path / "second", target / "second")
